package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// Dir is the directory that the tests of a back end work in.
const Dir = "/demo"

// Patience bounds every wait for one change, for much longer than a busy machine needs.
const Patience = 30 * time.Second

// Follower runs a watch of Dir and looks at its elements.
type Follower struct {
	Last dcs.Snapshot

	t      testing.TB
	levels <-chan dcs.Snapshot
	wait   func() error
}

// Follow begins to follow Dir. The watch ends with the test; that it ended before is an error, unless End was called.
func Follow(t testing.TB, r dcs.Reader) *Follower {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	f := &Follower{t: t}
	ended := false
	f.levels, f.wait = dcs.Latest(r.Watch(ctx, Dir))
	wait := f.wait
	f.wait = func() error {
		ended = true
		return wait()
	}
	t.Cleanup(func() {
		cancel()
		if err := wait(); !ended && !errors.Is(err, context.Canceled) {
			t.Errorf("watch ended with %v", err)
		}
	})
	return f
}

// Next waits for the next element.
func (f *Follower) Next() {
	f.t.Helper()
	select {
	case s, open := <-f.levels:
		if !open {
			f.t.Fatalf("watch ended: %v", f.wait())
		}
		f.Last = s
	case <-time.After(Patience):
		f.t.Fatalf("no element within %v", Patience)
	}
}

// Until waits for an element.
func (f *Follower) Until(what string, ok func(dcs.Snapshot) bool) {
	f.t.Helper()
	begin, timeout := time.Now(), time.After(Patience)
	for {
		select {
		case s, open := <-f.levels:
			if !open {
				f.t.Fatalf("watch ended while waiting until it is %s: %v", what, f.wait())
			}
			if s.At.Before(f.Last.At) {
				f.t.Errorf("At went back from %v to %v", f.Last.At, s.At)
			}
			if f.Last = s; ok(s) {
				f.t.Logf("%s after %v", what, time.Since(begin).Round(10*time.Microsecond))
				return
			}
		case <-timeout:
			f.t.Fatalf("not %s within %v; it is %v, known %v, stale: %v", what, Patience, Content(f.Last), f.Last.Known(), f.Last.Stale)
		}
	}
}

// End waits for the end of the watch, and returns why.
func (f *Follower) End() error {
	f.t.Helper()
	timeout := time.After(Patience)
	for {
		select {
		case _, open := <-f.levels:
			if !open {
				return f.wait()
			}
		case <-timeout:
			f.t.Fatalf("the watch does not end; it is %v, stale: %v", Content(f.Last), f.Last.Stale)
		}
	}
}

// Stale is a condition for Until.
func Stale(s dcs.Snapshot) bool { return s.Stale != nil }

// Fresh is a condition for Until: confirmed, with that content.
func Fresh(want string) func(dcs.Snapshot) bool {
	return func(s dcs.Snapshot) bool { return s.Known() && s.Stale == nil && Content(s) == want }
}

// Content is what is below Dir: "a=1 b/c=2".
func Content(s dcs.Snapshot) string {
	var b strings.Builder
	for e := range s.All(Dir) {
		fmt.Fprintf(&b, "%s=%s ", e.Key[len(Dir)+1:], e.Value)
	}
	return strings.TrimSpace(b.String())
}

// Put writes a key below Dir.
func Put(t testing.TB, w dcs.Writer, name, value string, prev dcs.Version) dcs.Version {
	t.Helper()
	v, err := w.Put(t.Context(), Dir+"/"+name, []byte(value), prev)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

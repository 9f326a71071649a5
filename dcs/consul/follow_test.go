package consul_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
)

const dir = "/demo"

// within bounds every wait, for much longer than a busy machine needs.
const within = 30 * time.Second

// follower runs a watch and looks at its elements.
type follower struct {
	t    testing.TB
	c    <-chan dcs.Snapshot
	last dcs.Snapshot
}

func follow(t testing.TB, s dcs.Reader) *follower {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c, wait := dcs.Latest(s.Watch(ctx, dir))
	t.Cleanup(func() {
		cancel()
		if err := wait(); !errors.Is(err, context.Canceled) {
			t.Errorf("watch ended with %v", err)
		}
	})
	return &follower{t: t, c: c}
}

// until waits for an element.
func (f *follower) until(what string, ok func(dcs.Snapshot) bool) {
	f.t.Helper()
	begin, timeout := time.Now(), time.After(within)
	for {
		select {
		case s, open := <-f.c:
			if !open {
				f.t.Fatalf("watch ended while waiting until it is %s", what)
			}
			if s.At.Before(f.last.At) {
				f.t.Errorf("At went back from %v to %v", f.last.At, s.At)
			}
			if f.last = s; ok(s) {
				f.t.Logf("%s after %v", what, time.Since(begin).Round(10*time.Microsecond))
				return
			}
		case <-timeout:
			f.t.Fatalf("not %s within %v; it is %v, known %v, stale: %v", what, within, content(f.last), f.last.Known(), f.last.Stale)
		}
	}
}

func stale(s dcs.Snapshot) bool { return s.Stale != nil }

func fresh(want string) func(dcs.Snapshot) bool {
	return func(s dcs.Snapshot) bool { return s.Known() && s.Stale == nil && content(s) == want }
}

func content(s dcs.Snapshot) string {
	var b strings.Builder
	for e := range s.All(dir) {
		fmt.Fprintf(&b, "%s=%s ", e.Key[len(dir)+1:], e.Value)
	}
	return strings.TrimSpace(b.String())
}

func put(t testing.TB, s dcs.Writer, name, value string, prev dcs.Version) dcs.Version {
	t.Helper()
	v, err := s.Put(t.Context(), dir+"/"+name, []byte(value), prev)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

package dcstest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// client is one client of the store with the faults of its path.
type client struct {
	dcs.Store
	Faults
}

// fixture is what a case works with. Its helpers end the case when the store fails.
type fixture struct {
	*testing.T
	client                 // the case's first
	ctx    context.Context // the bound of the case; it has no deadline
	dir    string          // used by nobody else
	open   func(t *testing.T) (dcs.Store, Faults)
	stood  func() time.Duration // how long this process stood still since the first lease, at most
}

// another opens a further client.
func (f *fixture) another() client {
	f.Helper()
	store, faults := f.open(f.T)
	return client{store, faults}
}

func (f *fixture) key(name string) string { return f.dir + "/" + name }

func (f *fixture) put(w dcs.Writer, name, value string, prev dcs.Version) dcs.Version {
	f.Helper()
	v, err := w.Put(f.ctx, f.key(name), []byte(value), prev)
	if err != nil {
		f.Fatalf("put %s: %v", name, err)
	}
	return v
}

func (f *fixture) remove(w dcs.Writer, name string, prev dcs.Version) {
	f.Helper()
	if err := w.Delete(f.ctx, f.key(name), prev); err != nil {
		f.Fatalf("delete %s: %v", name, err)
	}
}

func (f *fixture) get(r dcs.Reader, dir string) dcs.Snapshot {
	f.Helper()
	s, err := r.Get(f.ctx, dir)
	if err != nil {
		f.Fatalf("get %s: %v", dir, err)
	}
	if !s.Known() || s.Stale != nil {
		f.Fatalf("get %s: known %v, stale %v", dir, s.Known(), s.Stale)
	}
	return s
}

// want fails unless the snapshot holds exactly these keys and values below the fixture's directory.
func (f *fixture) want(s dcs.Snapshot, pairs ...string) {
	f.Helper()
	if got, want := f.list(s), fmt.Sprint(pairs); got != want {
		f.Fatalf("content is %v, want %v", got, want)
	}
}

func (f *fixture) list(s dcs.Snapshot) string {
	got := []string{}
	for e := range s.All(f.dir) {
		got = append(got, e.Key[len(f.dir)+1:]+"="+string(e.Value))
	}
	return fmt.Sprint(got)
}

// is reports whether the content is confirmed and this.
func (f *fixture) is(pairs ...string) func(dcs.Snapshot) bool {
	return func(s dcs.Snapshot) bool { return fresh(s) && f.list(s) == fmt.Sprint(pairs) }
}

func fresh(s dcs.Snapshot) bool { return s.Known() && s.Stale == nil }

func stale(s dcs.Snapshot) bool { return s.Stale != nil }

// await ranges over a watch until its content is this.
func (f *fixture) await(pairs ...string) {
	f.Helper()
	is := f.is(pairs...)
	for s, err := range f.Watch(f.ctx, f.dir) {
		if err != nil {
			f.Fatalf("watch ended with %v before the content was %v; it is %v, stale: %v", err, pairs, f.list(s), s.Stale)
		}
		if is(s) {
			return
		}
	}
}

// failing is a call that cannot succeed.
type failing struct {
	what  string
	about string // what its error names
	call  func() error
}

// fail runs calls at once. Each must end by itself, and say what it was about. It returns their errors, by what they are.
func (f *fixture) fail(calls ...failing) map[string]error {
	f.Helper()
	outcome := make(map[string]error)
	var mu sync.Mutex
	var wg sync.WaitGroup
	begin := time.Now()
	for _, c := range calls {
		wg.Go(func() {
			err := c.call()
			f.Logf("%s: %v (after %v)", c.what, err, time.Since(begin).Round(time.Millisecond))
			switch {
			case f.ctx.Err() != nil:
				f.Errorf("%s has no bound of its own", c.what)
			case err == nil:
				f.Errorf("%s succeeds", c.what)
			case !strings.Contains(err.Error(), c.about):
				f.Errorf("%s: the error does not name %s: %v", c.what, c.about, err)
			}
			mu.Lock()
			defer mu.Unlock()
			outcome[c.what] = err
		})
	}
	wg.Wait()
	return outcome
}

// read is a Get of the fixture's directory, which must not return what could be taken for an empty one.
func (f *fixture) read() failing {
	return failing{"get", f.dir, func() error {
		s, err := f.Get(f.ctx, f.dir)
		if s.Known() {
			f.Errorf("a snapshot that claims to be confirmed: %v", f.list(s))
		}
		return err
	}}
}

// write is a Put.
func (f *fixture) write(name, value string, prev dcs.Version) failing {
	return failing{name, f.key(name), func() error {
		_, err := f.Put(f.ctx, f.key(name), []byte(value), prev)
		return err
	}}
}

// changedNothing fails if a write that failed with err, for want of a path or a server, may be believed to have changed
// nothing, but did: the key is not at old any more.
func (f *fixture) changedNothing(name string, err error, old dcs.Version) {
	f.Helper()
	if errors.Is(err, dcs.ErrConflict) || errors.Is(err, dcs.ErrInvalid) {
		f.Errorf("write of %s: %v", name, err)
	}
	if errors.Is(err, dcs.ErrUnknown) {
		return
	}
	if now, _ := f.get(f.another(), f.dir).Get(f.key(name)); now.Version != old {
		f.Errorf("a write ended with %v, and %s went from %v to %v %q", err, name, old, now.Version, now.Value)
	}
}

// apply puts a fault in force until heal is called, or the case ends.
func (f *fixture) apply(fault func(*testing.T) func()) (heal func()) {
	f.Helper()
	heal = sync.OnceFunc(fault(f.T))
	f.Cleanup(heal)
	return heal
}

// eventually repeats a call until it succeeds: a client that could not reach the store may need a moment.
func (f *fixture) eventually(what string, call func() error) {
	f.Helper()
	for {
		err := call()
		if err == nil {
			return
		}
		select {
		case <-f.ctx.Done():
			f.Fatalf("%s never succeeds: %v", what, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// reachable reads until the case's client reaches the store again.
func (f *fixture) reachable() (s dcs.Snapshot) {
	f.Helper()
	f.eventually("get", func() (err error) {
		s, err = f.Get(f.ctx, f.dir)
		return err
	})
	return s
}

package dcstest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// The first element is the present content; that of an empty directory is known to be empty.
func watchBeginsWithTheLevel(f *fixture) {
	f.await() // empty, and known to be
	f.put(f, "a", "1", dcs.Version{})
	f.put(f, "b", "2", dcs.Version{})
	for s, err := range f.Watch(f.ctx, f.dir) {
		if err != nil || !s.Known() || s.Stale != nil {
			f.Fatalf("first element: %v, known %v, stale %v", err, s.Known(), s.Stale)
		}
		f.want(s, "a=1", "b=2")
		return
	}
}

// After each change by another client the state arrives; what is yielded equals what Get returns, version for version.
func watchFollows(f *fixture) {
	var v dcs.Version
	w := f.another()
	steps := []struct {
		do   func()
		want []string
	}{
		{func() {}, nil},
		{func() { v = f.put(w, "k", "1", dcs.Version{}) }, []string{"k=1"}},
		{func() { v = f.put(w, "k", "2", v) }, []string{"k=2"}},
		{func() { f.put(w, "d/e", "x", dcs.Version{}) }, []string{"d/e=x", "k=2"}},
		{func() { f.remove(w, "k", v) }, []string{"d/e=x"}},
		{func() { v = f.put(w, "k", "3", dcs.Version{}) }, []string{"d/e=x", "k=3"}},
	}
	steps[0].do()
	i := 0
	for s, err := range f.Watch(f.ctx, f.dir) {
		if err != nil {
			f.Fatalf("watch ended with %v while waiting for %v; it has %v", err, steps[i].want, f.list(s))
		}
		if f.list(s) != fmt.Sprint(append([]string{}, steps[i].want...)) {
			continue
		}
		now := f.get(f, f.dir)
		for key := range s.Changed(now) {
			f.Fatalf("%s differs between watch and get", key)
		}
		if i++; i == len(steps) {
			return
		}
		steps[i].do()
	}
}

// A watch has the keys of its directory only.
func watchMindsItsDirectory(f *fixture) {
	started := false
	for s, err := range f.Watch(f.ctx, f.key("a")) {
		if err != nil {
			f.Fatal(err)
		}
		if !started {
			started = true
			f.put(f, "a", "no", dcs.Version{})
			f.put(f, "ab", "no", dcs.Version{})
			f.put(f, "ab/x", "no", dcs.Version{})
			f.put(f, "a/x", "yes", dcs.Version{})
		}
		switch got := f.list(s); got {
		case "[]":
		case "[a/x=yes]":
			return
		default:
			f.Fatalf("content is %v", got)
		}
	}
}

// The end of the context is the last pair, with its cause and the last content.
func watchEndsWithItsContext(f *fixture) {
	f.put(f, "k", "1", dcs.Version{})
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(f.ctx)
	defer cancel(nil)
	ended := false
	for s, err := range f.Watch(ctx, f.dir) {
		if ended {
			f.Fatal("another pair after the error")
		}
		if err == nil {
			cancel(why)
			continue
		}
		if ended = true; !errors.Is(err, why) {
			f.Fatalf("ended with %v", err)
		}
		f.want(s, "k=1")
	}
	if !ended {
		f.Fatal("the sequence ended without the reason")
	}
}

// A version tells what happened while nobody looked: written back to what it was, deleted and made again.
func versionTellsWhatWasMissed(f *fixture) {
	a := f.put(f, "a", "A", dcs.Version{})
	b := f.put(f, "b", "B", dcs.Version{})
	first := true
	for s, err := range f.Watch(f.ctx, f.dir) {
		if err != nil {
			f.Fatal(err)
		}
		if !fresh(s) {
			continue
		}
		if first {
			first = false
			a = f.put(f, "a", "A", f.put(f, "a", "B", a))
			f.remove(f, "b", b)
			b = f.put(f, "b", "B", dcs.Version{})
		}
		if has(f.key("a"), a)(s) && has(f.key("b"), b)(s) {
			f.want(s, "a=A", "b=B")
			return
		}
	}
}

// A leader key that is put once, and kept by its lease alone, is in every element as it was put, whatever else changes.
func leaderKeyIsNeverRewritten(f *fixture) {
	const changes = 100
	other := f.another()
	h := f.lease(other, "leader", "n1")
	n := 0
	var beat dcs.Version
	for s, err := range f.Watch(f.ctx, f.dir) {
		if err != nil {
			f.Fatal(err)
		}
		if e, ok := s.Get(h.key); s.Known() && (!ok || e.Version != h.held || string(e.Value) != "n1") {
			f.Fatalf("the leader key is %v %q, %v; want %v", e.Version, e.Value, ok, h.held)
		}
		if e, _ := s.Get(f.key("beat")); fresh(s) && e.Version == beat {
			if n++; n > changes {
				break
			}
			sleep(f.ctx, 10*time.Millisecond)
			beat = f.put(other, "beat", "", beat)
		}
	}
	h.kept()
	if err := h.end(); err != nil {
		f.Error(err)
	}
	f.await("beat=")
}

// Watches of two directories and of the one above them do not mind each other.
func watchesAreIndependent(f *fixture) {
	one, two, all := f.key("one"), f.key("two"), f.follow(f)
	f.put(f, "one/k", "1", dcs.Version{})
	for s, err := range f.Watch(f.ctx, one) {
		if err != nil {
			f.Fatal(err)
		}
		if f.list(s) != "[one/k=1]" {
			continue
		}
		written := false
		for s, err := range f.Watch(f.ctx, two) {
			if err != nil {
				f.Fatal(err)
			}
			if f.is("two/k=2")(s) {
				break
			}
			f.want(s) // nothing of its sibling
			if fresh(s) && !written {
				written = true
				f.put(f, "two/k", "2", dcs.Version{})
			}
		}
		break
	}
	all.until("both", f.is("one/k=1", "two/k=2"))
	f.put(f, "one/k2", "1", dcs.Version{}) // the watch beside this one was left long ago
	all.until("all", f.is("one/k=1", "one/k2=1", "two/k=2"))
}

// Many watches of one client at once all get the final state.
func manyWatchesFollow(f *fixture) {
	const watches = 40
	var views []*view
	for range watches {
		views = append(views, f.follow(f))
	}
	v := f.put(f, "k", "1", dcs.Version{})
	v = f.put(f, "k", "2", v)
	for _, view := range views {
		view.until("following", has(f.key("k"), v))
	}
}

// At is of this process's monotonic clock, so that a clock that is set changes no age, and it is not in the future.
func momentsAreMonotonic(f *fixture) {
	before := time.Now()
	check := func(what string, s dcs.Snapshot) {
		f.Helper()
		if at, now := s.At, time.Now(); !monotonic(at) || at.Before(before) || at.After(now) {
			f.Errorf("%s: At is %v, asked at %v, had at %v", what, at, before, now)
		}
	}
	check("get", f.get(f, f.dir))
	n := 0
	for s, err := range f.Watch(f.ctx, f.dir) {
		if err != nil {
			f.Fatal(err)
		}
		if !fresh(s) {
			continue
		}
		check("watch", s)
		if n++; n == 3 {
			break
		}
		f.put(f, fmt.Sprint("k", n), "", dcs.Version{})
	}
}

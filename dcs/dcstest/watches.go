package dcstest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// The first element is the present content; that of an empty directory is known to be empty.
func watchBeginsWithTheLevel(f *fixture) {
	f.await()
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

// After each change the state arrives; what is yielded equals what Get returns, version for version.
func watchFollows(f *fixture) {
	var v dcs.Version
	steps := []struct {
		do   func()
		want []string
	}{
		{func() {}, nil},
		{func() { v = f.put(f, "k", "1", dcs.Version{}) }, []string{"k=1"}},
		{func() { v = f.put(f, "k", "2", v) }, []string{"k=2"}},
		{func() { f.put(f, "d/e", "x", dcs.Version{}) }, []string{"d/e=x", "k=2"}},
		{func() {
			if err := f.Delete(f.ctx, f.key("k"), v); err != nil {
				f.Fatal(err)
			}
		}, []string{"d/e=x"}},
		{func() { v = f.put(f, "k", "3", dcs.Version{}) }, []string{"d/e=x", "k=3"}},
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
		now := f.get(f.dir)
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

// A slow consumer gets the newest state and not each one in between. On a busy machine news may come late by themselves,
// one by one, when the consumer is free again; a watch that keeps them does so every time.
func watchIsSlowAndGetsTheNewest(f *fixture) {
	const writes, attempts = 50, 5
	v := f.put(f, "k", "0", dcs.Version{})
	var counts []int
	for len(counts) < attempts {
		n := 0
		v, n = f.elements(v, writes)
		if counts = append(counts, n); n <= writes/2 {
			return
		}
	}
	f.Fatalf("%v elements for %d writes each, made while the consumer was busy", counts, writes)
}

// elements counts what a consumer gets that is busy while writes are made, until it has the last one, whose version is
// returned.
func (f *fixture) elements(v dcs.Version, writes int) (last dcs.Version, n int) {
	f.Helper()
	for s, err := range f.Watch(f.ctx, f.dir) {
		if err != nil {
			f.Fatal(err)
		}
		if n++; n == 1 {
			for i := range writes {
				v = f.put(f, "k", fmt.Sprint(i+1), v)
			}
			// What an adversary could still be about to deliver has time to arrive.
			f.await(fmt.Sprint("k=", writes))
		}
		if e, _ := s.Get(f.key("k")); e.Version == v {
			break
		}
	}
	return v, n
}

// No key ever goes back, and the final state arrives, whatever happens at the same time.
func watchNeverGoesBack(f *fixture) {
	const keys, writes = 4, 40
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	for k := range keys {
		wg.Go(func() {
			name := fmt.Sprint("k", k)
			var v dcs.Version
			for i := range writes {
				var err error
				if i%7 == 6 {
					if err = f.Delete(ctx, f.key(name), v); err == nil {
						v = dcs.Version{}
					}
				}
				if err == nil {
					v, err = f.Put(ctx, f.key(name), fmt.Append(nil, i), v)
				}
				if err != nil {
					f.Errorf("write %s: %v", name, err)
					return
				}
			}
		})
	}
	seen := make(map[string]dcs.Version)
	for s, err := range f.Watch(ctx, f.dir) {
		if err != nil {
			f.Errorf("watch ended with %v at %v", err, f.list(s))
			return
		}
		done := 0
		for e := range s.All(f.dir) {
			old := seen[e.Key]
			if e.Version.Created < old.Created || e.Version.Created == old.Created && e.Version.Modified < old.Modified {
				f.Errorf("%s went back from %v to %v", e.Key, old, e.Version)
			}
			seen[e.Key] = e.Version
			if string(e.Value) == fmt.Sprint(writes-1) {
				done++
			}
		}
		if done == keys {
			return
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

// Each range opens a watch of its own; leaving the loop closes it, and no goroutine outlives it.
func watchLeavesNothing(f *fixture) {
	f.put(f, "k", "1", dcs.Version{})
	seq := f.Watch(f.ctx, f.dir)
	f.await("k=1") // whatever a client starts on its first use
	before := runtime.NumGoroutine()
	for range 10 {
		for s, err := range seq {
			if err != nil {
				f.Fatal(err)
			}
			f.want(s, "k=1")
			break
		}
	}
	for runtime.NumGoroutine() > before {
		select {
		case <-f.ctx.Done():
			f.Fatalf("%d goroutines before, %d after", before, runtime.NumGoroutine())
		case <-time.After(time.Millisecond):
		}
	}
}

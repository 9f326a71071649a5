package dcstest

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
)

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

// A consumer that stops reading holds nobody up, and gets the final state when it reads again.
func consumerStopsReading(f *fixture) {
	const writes = 150
	beside := f.follow(f)
	v := f.put(f, "k", "0", dcs.Version{})
	n := 0
	for s, err := range f.Watch(f.ctx, f.dir) {
		if err != nil {
			f.Fatal(err)
		}
		if n++; n == 1 {
			for i := range writes {
				v = f.put(f, "k", fmt.Sprint(i+1), v)
			}
			beside.until("the final state for another watch", has(f.key("k"), v))
		}
		if has(f.key("k"), v)(s) {
			f.Logf("%d elements for %d writes", n, writes)
			return
		}
	}
}

// No key ever goes back, and the final state arrives, whatever happens at the same time.
func watchNeverGoesBack(f *fixture) {
	f.burst(4, 40)
}

// So it is in a burst of ten thousand changes, or as many as the store makes in the time.
func watchFollowsABurst(f *fixture) {
	writes := 500
	if testing.Short() {
		writes = 50
	}
	f.burst(20, writes)
}

// burst has as many writers as keys change each its own, over some clients, while a watch follows, and awaits the final
// state.
func (f *fixture) burst(keys, writes int) {
	const enough = 20 * time.Second
	v := f.follow(f.another())
	begin := time.Now()
	var wg sync.WaitGroup
	var changes atomic.Int64
	last := make([]dcs.Version, keys)
	var writers []client
	for range 4 {
		writers = append(writers, f.another())
	}
	for k := range keys {
		wg.Go(func() {
			w, name := writers[k%len(writers)], fmt.Sprint("k", k)
			for i := 0; i < writes && time.Since(begin) < enough; i++ {
				var err error
				if i%7 == 6 {
					if err = w.Delete(f.ctx, f.key(name), last[k]); err == nil {
						last[k] = dcs.Version{}
					}
				}
				if err == nil {
					last[k], err = w.Put(f.ctx, f.key(name), fmt.Append(nil, i), last[k])
				}
				if err != nil {
					f.Errorf("write %s: %v", name, err)
					return
				}
				changes.Add(1)
			}
		})
	}
	wg.Wait()
	f.Logf("%d changes in %v", changes.Load(), time.Since(begin).Round(time.Millisecond))
	v.until("final", func(s dcs.Snapshot) bool {
		for k, version := range last {
			if !has(f.key(fmt.Sprint("k", k)), version)(s) {
				return false
			}
		}
		return true
	})
}

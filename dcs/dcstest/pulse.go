package dcstest

import (
	"context"
	"sync"
	"time"
)

// tolerated is less than a tenth of any TTL that is fit for a busy machine.
const tolerated = 100 * time.Millisecond

// pulse measures, until the case ends, how long this process stood still at most.
func (f *fixture) pulse() (longest func() time.Duration) {
	const every = 10 * time.Millisecond
	var mu sync.Mutex
	var most time.Duration
	last := time.Now()
	longest = func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return max(most, time.Since(last)-every)
	}
	ctx, cancel := context.WithCancel(f.ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			sleep(ctx, every)
			mu.Lock()
			most, last = max(most, time.Since(last)-every), time.Now()
			mu.Unlock()
		}
	}()
	f.Cleanup(func() {
		cancel()
		<-done
	})
	return longest
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

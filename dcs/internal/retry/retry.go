// Package retry paces what is tried again.
package retry

import (
	"context"
	"math/rand/v2"
	"time"
)

// Bounds of the wait between two failed attempts.
const (
	Min = 50 * time.Millisecond
	Max = time.Second
)

// Backoff is the wait after the nth failure in a row, n > 0: it doubles, and varies so that many do not try in step.
func Backoff(n int) time.Duration {
	d := Max
	if n < 10 {
		d = min(Max, Min<<(n-1))
	}
	return d/2 + rand.N(d/2)
}

// Spread shortens an interval by up to a tenth, so that many who keep to it do not act in step.
func Spread(d time.Duration) time.Duration { return d - rand.N(d/10+1) }

// Wait waits for d, or until ctx has ended: then it returns false.
func Wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

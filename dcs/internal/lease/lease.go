// Package lease keeps a lease alive around a function. It is the part that every back end with a renewable lease has
// in common, so that all of them judge the end by the same clock and release on the same paths.
package lease

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/internal/retry"
)

// Lease is a lease that was just granted.
type Lease struct {
	// Asked is the moment before the grant was asked for: the TTL cannot have begun earlier.
	Asked time.Time
	// TTL is what the store granted.
	TTL time.Duration
	// Renew asks for another TTL, and returns what was granted. It is called with a bounded context; dcs.ErrLeaseLost
	// says that the store does not know the lease any more, every other error is tried again.
	Renew func(ctx context.Context) (time.Duration, error)
	// Release gives the lease back, within two seconds. It is not called for a lease that was lost. Its error is of no
	// consequence: the lease ends by itself.
	Release func(ctx context.Context)
}

const releaseWithin = 2 * time.Second

// Hold runs fn while the lease lives. fn's context ends with cause [dcs.ErrLeaseLost] a tenth of the TTL before the
// store may end the lease. The lease is released when fn returns, fails or panics, also when ctx has ended.
//
// The error is fn's; if fn failed with nothing but the end of its context, the loss is added as the reason.
func (l Lease) Hold(ctx context.Context, fn func(ctx context.Context) error) error {
	held, lose := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := l.keep(held); err != nil {
			lose(err)
		}
	}()
	defer func() {
		lose(context.Canceled) // ends keep; the first cause stays
		<-done
		if errors.Is(context.Cause(held), dcs.ErrLeaseLost) {
			return // it is over, or within a tenth of its time
		}
		rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseWithin)
		defer cancel()
		l.Release(rctx)
	}()

	err := fn(held)
	if cause := context.Cause(held); errors.Is(err, context.Canceled) && !errors.Is(err, dcs.ErrLeaseLost) && errors.Is(cause, dcs.ErrLeaseLost) {
		err = fmt.Errorf("%w (%w)", err, cause)
	}
	return err
}

// keep renews until ctx ends (nil) or the lease is lost.
func (l Lease) keep(ctx context.Context) error {
	ends := l.Asked.Add(safe(l.TTL))
	wait := l.TTL / 3
	var last error
	for {
		if !retry.Wait(ctx, min(wait, time.Until(ends))) {
			return nil
		}
		now := time.Now()
		if !now.Before(ends) {
			if last == nil {
				last = errors.New("no renewal in time")
			}
			return fmt.Errorf("%w: not renewed for %v: %w", dcs.ErrLeaseLost, now.Sub(l.Asked).Round(time.Millisecond), last)
		}
		// One attempt takes a third of the TTL at most, so that a second one fits when an answer got lost.
		rctx, cancel := context.WithDeadline(ctx, earlier(now.Add(l.TTL/3), ends))
		ttl, err := l.Renew(rctx)
		cancel()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, dcs.ErrLeaseLost):
			return err
		case err != nil:
			last = err
			wait = jitter(l.TTL / 20)
		default:
			last = nil
			l.Asked, l.TTL = now, ttl
			ends = now.Add(safe(ttl))
			wait = ttl / 3
		}
	}
}

// safe is how much of a TTL may be used: fn needs a moment to notice its end.
func safe(ttl time.Duration) time.Duration { return ttl - ttl/10 }

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

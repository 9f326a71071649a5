package dcstest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// While somebody holds a lock another is refused with the holder's entry.
func lockHasOneHolder(f *fixture) {
	err := dcs.Lock(f.ctx, f, f.key("lock"), []byte("me"), func(ctx context.Context, w dcs.Writer, held dcs.Version) error {
		err := dcs.Lock(ctx, f, f.key("lock"), []byte("you"), func(context.Context, dcs.Writer, dcs.Version) error {
			f.Error("two holders")
			return nil
		})
		refusal, ok := errors.AsType[*dcs.HeldError](err)
		if !ok || string(refusal.Holder.Value) != "me" || refusal.Holder.Version != held {
			return fmt.Errorf("the second one got %w", err)
		}
		if text := err.Error(); !strings.Contains(text, f.key("lock")) || !strings.Contains(text, "me") {
			return fmt.Errorf("the refusal names neither key nor holder: %w", err)
		}
		f.put(w, "lock", "still me", held)
		return nil
	})
	if err != nil {
		f.Fatal(err)
	}
	f.await()
}

// The fencing token grows with every holder.
func lockTokensGrow(f *fixture) {
	var last uint64
	for range 3 {
		err := dcs.Lock(f.ctx, f, f.key("lock"), nil, func(_ context.Context, _ dcs.Writer, held dcs.Version) error {
			if held.Created <= last {
				return fmt.Errorf("token %d after %d", held.Created, last)
			}
			last = held.Created
			return nil
		})
		if err != nil {
			f.Fatal(err)
		}
		f.await()
	}
}

// Many that want a lock at once hold it one after the other, each with a higher token.
func lockIsHeldByOneAtATime(f *fixture) {
	const clients, each = 4, 3
	var holders, last atomic.Int64
	var wg sync.WaitGroup
	for range clients {
		c := f.another()
		wg.Go(func() {
			for n := 0; n < each; {
				err := dcs.Lock(f.ctx, c, f.key("lock"), nil, func(_ context.Context, _ dcs.Writer, held dcs.Version) error {
					if holders.Add(1) != 1 {
						f.Error("two holders")
					}
					defer holders.Add(-1)
					if token := int64(held.Created); last.Swap(token) >= token {
						f.Errorf("token %d is not higher than the one before", token)
					}
					n++
					return nil
				})
				if _, held := errors.AsType[*dcs.HeldError](err); err != nil && !held && !errors.Is(err, dcs.ErrConflict) {
					f.Errorf("lock: %v", err)
					return
				}
				if err != nil {
					time.Sleep(5 * time.Millisecond) // not in a storm
				}
			}
		})
	}
	wg.Wait()
	f.await()
}

// A lock is given back when its function fails or panics, too.
func lockEndsOnErrorAndPanic(f *fixture) {
	why := errors.New("why")
	err := dcs.Lock(f.ctx, f, f.key("lock"), nil, func(context.Context, dcs.Writer, dcs.Version) error { return why })
	if !errors.Is(err, why) {
		f.Errorf("lock returned %v", err)
	}
	f.await()
	func() {
		defer func() {
			if r := recover(); r != why { //nolint:errorlint // the very value that was thrown
				f.Errorf("recovered %v", r)
			}
		}()
		_ = dcs.Lock(f.ctx, f, f.key("lock"), nil, func(context.Context, dcs.Writer, dcs.Version) error { panic(why) })
	}()
	f.await()
}

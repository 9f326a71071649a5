package dcstest

import (
	"context"
	"errors"
	"fmt"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// Keys that fn puts through w belong to the lease and go with it; others stay.
func leaseTakesItsKeysAlong(f *fixture) {
	err := f.Lease(f.ctx, func(_ context.Context, w dcs.Writer) error {
		v := f.put(w, "mine", "1", dcs.Version{})
		f.put(w, "mine", "2", v)
		f.put(w, "mine/too", "1", dcs.Version{})
		f.put(f, "other", "1", dcs.Version{})
		f.await("mine=2", "mine/too=1", "other=1")
		return nil
	})
	if err != nil {
		f.Fatal(err)
	}
	f.await("other=1")
}

// The lease is released when fn fails or panics, too; the error and the panic are fn's.
func leaseEndsOnErrorAndPanic(f *fixture) {
	why := errors.New("why")
	if err := f.Lease(f.ctx, func(_ context.Context, w dcs.Writer) error {
		f.put(w, "k", "1", dcs.Version{})
		return why
	}); !errors.Is(err, why) {
		f.Fatalf("lease returned %v", err)
	}
	f.await()
	func() {
		defer func() {
			if r := recover(); r != why { //nolint:errorlint // the very value that was thrown
				f.Fatalf("recovered %v", r)
			}
		}()
		_ = f.Lease(f.ctx, func(_ context.Context, w dcs.Writer) error {
			f.put(w, "k", "1", dcs.Version{})
			panic(why)
		})
	}()
	f.await()
}

// fn's context ends with the caller's, and the lease is released all the same.
func leaseEndsWithItsContext(f *fixture) {
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(f.ctx)
	err := f.Lease(ctx, func(ctx context.Context, w dcs.Writer) error {
		f.put(w, "k", "1", dcs.Version{})
		cancel(why)
		<-ctx.Done()
		return context.Cause(ctx)
	})
	if !errors.Is(err, why) {
		f.Fatalf("lease returned %v", err)
	}
	f.await()
}

// A leased put over a key of somebody else, or of nobody, makes it the lease's.
func leaseTakesOverAKey(f *fixture) {
	v := f.put(f, "k", "nobody's", dcs.Version{})
	var left dcs.Version
	for _, owner := range []string{"first", "second"} {
		err := f.Lease(f.ctx, func(ctx context.Context, w dcs.Writer) error {
			if owner == "second" {
				// A lease inside the other one's life: the key changes hands while its first owner still lives.
				return f.Lease(ctx, func(_ context.Context, w2 dcs.Writer) error {
					v := f.put(w, "k", "first", left)
					f.put(w2, "k", "second", v)
					return nil
				})
			}
			f.put(w, "k", owner, v)
			return nil
		})
		if err != nil {
			f.Fatal(err)
		}
		f.await()
	}
}

// Put never changes the lease that a key belongs to.
func plainPutKeepsTheLease(f *fixture) {
	err := f.Lease(f.ctx, func(_ context.Context, w dcs.Writer) error {
		v := f.put(w, "k", "1", dcs.Version{})
		f.put(f, "k", "2", v)
		f.await("k=2")
		return nil
	})
	if err != nil {
		f.Fatal(err)
	}
	f.await()
}

// A writer that outlives its lease cannot make a key that nobody owns.
func endedLeaseWritesNothing(f *fixture) {
	var late dcs.Writer
	err := f.Lease(f.ctx, func(_ context.Context, w dcs.Writer) error {
		late = w
		f.put(w, "k", "1", dcs.Version{})
		return nil
	})
	if err != nil {
		f.Fatal(err)
	}
	f.await()
	if _, err := late.Put(f.ctx, f.key("k"), []byte("2"), dcs.Version{}); !errors.Is(err, dcs.ErrLeaseLost) {
		f.Fatalf("put after the end of the lease: %v", err)
	}
	f.await()
}

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

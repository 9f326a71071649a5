package dcstest

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// Keys that fn puts through w belong to the lease and go with it; others stay.
func leaseTakesItsKeysAlong(f *fixture) {
	err := f.Lease(f.ctx, func(_ context.Context, w dcs.Writer) error {
		v := f.put(w, "mine", "1", dcs.Version{})
		f.put(w, "mine", "2", v)
		f.put(w, "too", "1", dcs.Version{})
		f.put(f, "other", "1", dcs.Version{})
		f.await("mine=2", "other=1", "too=1")
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

// Put never changes the lease that a key belongs to: neither its owner's nor a foreign one.
func plainPutKeepsTheLease(f *fixture) {
	other := f.another()
	err := f.Lease(f.ctx, func(_ context.Context, w dcs.Writer) error {
		v := f.put(w, "k", "1", dcs.Version{})
		v = f.put(f, "k", "2", v)
		v = f.put(other, "k", "3", v)
		f.await("k=3")
		f.put(w, "k", "4", v) // still its own
		return nil
	})
	if err != nil {
		f.Fatal(err)
	}
	f.await()
}

// A leased key that somebody else deletes and makes again is not the lease's any more.
func recreatedKeyIsNobodys(f *fixture) {
	other := f.another()
	err := f.Lease(f.ctx, func(_ context.Context, w dcs.Writer) error {
		f.remove(other, "k", f.put(w, "k", "mine", dcs.Version{}))
		f.put(other, "k", "nobody's", dcs.Version{})
		f.remove(w, "gone", f.put(w, "gone", "mine", dcs.Version{}))
		return nil
	})
	if err != nil {
		f.Fatal(err)
	}
	f.await("k=nobody's")
}

// A writer of a lease compares versions as a plain one does.
func leasedPutNeedsTheVersion(f *fixture) {
	old := f.put(f, "k", "nobody's", dcs.Version{})
	err := f.Lease(f.ctx, func(ctx context.Context, w dcs.Writer) error {
		v := f.put(w, "k", "mine", old)
		for _, wrong := range []dcs.Version{{}, old, {Created: v.Created}, {Created: v.Created + 1, Modified: v.Modified}} {
			if _, err := w.Put(ctx, f.key("k"), []byte("x"), wrong); !errors.Is(err, dcs.ErrConflict) {
				return fmt.Errorf("put at %v, key is at %v: %w", wrong, v, err)
			}
			if err := w.Delete(ctx, f.key("k"), wrong); !errors.Is(err, dcs.ErrConflict) {
				return fmt.Errorf("delete at %v, key is at %v: %w", wrong, v, err)
			}
		}
		if now, _ := f.get(f, f.dir).Get(f.key("k")); now.Version != v || string(now.Value) != "mine" {
			return fmt.Errorf("the key is at %v %q, want %v", now.Version, now.Value, v)
		}
		return nil
	})
	if err != nil {
		f.Fatal(err)
	}
	f.await()
}

// A lease inside another one's life ends by itself, and leaves the other one's keys.
func leasesNest(f *fixture) {
	err := f.Lease(f.ctx, func(ctx context.Context, outer dcs.Writer) error {
		f.put(outer, "outer", "1", dcs.Version{})
		err := f.Lease(ctx, func(_ context.Context, inner dcs.Writer) error {
			f.put(inner, "inner", "1", dcs.Version{})
			f.await("inner=1", "outer=1")
			return nil
		})
		f.await("outer=1")
		f.put(outer, "outer2", "1", dcs.Version{})
		return errors.Join(err, context.Cause(ctx))
	})
	if err != nil {
		f.Fatal(err)
	}
	f.await()
}

// Many leases of one client and of others live side by side.
func manyLeasesLive(f *fixture) {
	other, v := f.another(), f.follow(f)
	var holders []*holder
	var all, first []string
	for i := range 16 {
		from := f.client
		if i%4 == 3 {
			from = other
		}
		name := fmt.Sprintf("k%02d", i)
		holders = append(holders, f.lease(from, name, "1"))
		all = append(all, name+"=1")
		if i%2 == 0 {
			first = append(first, name+"=1")
		}
	}
	v.until("complete", f.is(all...))
	for i, h := range holders {
		if i%2 == 1 {
			if err := h.end(); err != nil {
				f.Errorf("lease of %s: %v", h.key, err)
			}
		}
	}
	v.until("halved", f.is(first...))
	for _, h := range holders {
		if err := h.end(); err != nil {
			f.Errorf("lease of %s: %v", h.key, err)
		}
	}
	v.until("empty", f.is())
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
	_, err = late.Put(f.ctx, f.key("k"), []byte("2"), dcs.Version{})
	if !errors.Is(err, dcs.ErrLeaseLost) || !strings.Contains(err.Error(), f.key("k")) {
		f.Fatalf("put after the end of the lease: %v", err)
	}
	v := f.put(f, "k", "nobody's", dcs.Version{})
	if _, err := late.Put(f.ctx, f.key("k"), []byte("2"), v); !errors.Is(err, dcs.ErrLeaseLost) {
		f.Fatalf("put after the end of the lease: %v", err)
	}
	if _, err := late.Put(f.ctx, f.key("k"), []byte("2"), dcs.Version{}); err == nil {
		f.Fatal("put after the end of the lease")
	}
	f.await("k=nobody's")
}

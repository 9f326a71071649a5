package dcstest

import (
	"context"
	"errors"
	"sync"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// holder is a lease in a goroutine of its own, with one key.
type holder struct {
	f    *fixture
	key  string
	ctx  context.Context // fn's
	w    dcs.Writer
	held dcs.Version
	end  func() error // fn returns the error of its context; the outcome is Lease's
}

// lease puts a key under a lease of s and keeps it until end, or the end of the case.
func (f *fixture) lease(s dcs.Store, name, value string) *holder {
	f.Helper()
	h, err := f.tryHold(name, func(fn func(context.Context, dcs.Writer, dcs.Version) error) error {
		return s.Lease(f.ctx, func(ctx context.Context, w dcs.Writer) error {
			v, err := w.Put(ctx, f.key(name), []byte(value), dcs.Version{})
			if err != nil {
				return err
			}
			return fn(ctx, w, v)
		})
	})
	if err != nil {
		f.Fatalf("lease of %s: %v", name, err)
	}
	return h
}

// lock holds the key "lock" until end, or the end of the case.
func (f *fixture) lock(s dcs.Store, value string) (*holder, error) {
	const name = "lock"
	return f.tryHold(name, func(fn func(context.Context, dcs.Writer, dcs.Version) error) error {
		return dcs.Lock(f.ctx, s, f.key(name), []byte(value), fn)
	})
}

func (f *fixture) tryHold(name string, run func(fn func(context.Context, dcs.Writer, dcs.Version) error) error) (*holder, error) {
	if f.stood == nil {
		f.stood = f.pulse()
	}
	h := &holder{f: f, key: f.key(name)}
	held, release, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var outcome error
	go func() {
		defer close(done)
		outcome = run(func(ctx context.Context, w dcs.Writer, v dcs.Version) error {
			h.ctx, h.w, h.held = ctx, w, v
			close(held)
			<-release
			return ctx.Err()
		})
	}()
	let := sync.OnceFunc(func() { close(release) })
	h.end = func() error {
		let()
		<-done
		return outcome
	}
	f.Cleanup(func() { _ = h.end() })
	select {
	case <-held:
		return h, nil
	case <-done:
		return nil, outcome
	}
}

// lost waits until the holder is told that its lease is lost.
func (h *holder) lost() {
	h.f.Helper()
	select {
	case <-h.ctx.Done():
	case <-h.f.ctx.Done():
		h.f.Fatalf("the holder of %s is never told that it has lost it", h.key)
	}
	h.toldBefore("it was told")
}

// toldBefore fails unless the holder has been told by now. A process that stands still notices late, as with every lease:
// after that the holder has still to be told.
func (h *holder) toldBefore(what string) {
	h.f.Helper()
	if stood := h.f.stood(); h.ctx.Err() == nil && stood > tolerated {
		h.f.Logf("this process stood still for %v: nothing is proved of the moment at which %s is told", stood, h.key)
		select {
		case <-h.ctx.Done():
		case <-h.f.ctx.Done():
		}
	}
	if cause := context.Cause(h.ctx); !errors.Is(cause, dcs.ErrLeaseLost) {
		h.f.Errorf("the context of %s has ended with %v before %s, want %v", h.key, cause, what, dcs.ErrLeaseLost)
	}
}

// kept fails if the holder's lease is lost.
func (h *holder) kept() {
	h.f.Helper()
	if h.ctx.Err() != nil {
		h.f.Fatalf("the lease of %s is lost: %v", h.key, context.Cause(h.ctx))
	}
}

// writesNothing has the holder write late, which must fail and change nothing.
func (h *holder) writesNothing() {
	h.f.Helper()
	name := h.key[len(h.f.dir)+1:]
	now, _ := h.f.get(h.f.another(), h.f.dir).Get(h.key)
	for _, prev := range []dcs.Version{h.held, now.Version, {}} {
		_, err := h.w.Put(h.f.ctx, h.key, []byte("late"), prev)
		if !errors.Is(err, dcs.ErrLeaseLost) && (prev == now.Version || !errors.Is(err, dcs.ErrConflict)) {
			h.f.Errorf("a late put of %s at %v: %v", name, prev, err)
		}
	}
	if e, _ := h.f.get(h.f.another(), h.f.dir).Get(h.key); e.Version != now.Version {
		h.f.Errorf("%s went from %v to %v %q by a late put", name, now.Version, e.Version, e.Value)
	}
}

// rewrite has the holder write its key, also if it takes several attempts.
func (h *holder) rewrite(value string) {
	h.f.Helper()
	h.f.eventually("leased put", func() error {
		next, err := h.w.Put(h.f.ctx, h.key, []byte(value), h.held)
		if err == nil {
			h.held = next
			return nil
		}
		s, rerr := h.f.Get(h.f.ctx, h.f.dir) // an unknown outcome is resolved by reading
		if e, ok := s.Get(h.key); rerr == nil && ok && string(e.Value) == value {
			h.held = e.Version
			return nil
		}
		return errors.Join(err, context.Cause(h.ctx))
	})
}

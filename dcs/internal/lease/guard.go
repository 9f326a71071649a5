package lease

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// Write is Hold for a function that writes keys of the lease through w: what fn is given refuses every write as soon as
// the lease is lost or fn has returned, also where the store still knows the lease. store is named in these errors.
func (l Lease) Write(ctx context.Context, store string, w dcs.Writer, fn func(ctx context.Context, w dcs.Writer) error) error {
	return l.Hold(ctx, func(ctx context.Context) error {
		g := &guard{store: store, w: w, held: ctx}
		defer g.ended.Store(true)
		return fn(ctx, g)
	})
}

type guard struct {
	store string
	w     dcs.Writer
	held  context.Context // fn's: its cause says whether the lease was lost
	ended atomic.Bool
}

func (g *guard) Put(ctx context.Context, key string, value []byte, prev dcs.Version) (dcs.Version, error) {
	if err := g.refuse("put", key); err != nil {
		return dcs.Version{}, err
	}
	return g.w.Put(ctx, key, value, prev)
}

func (g *guard) Delete(ctx context.Context, key string, prev dcs.Version) error {
	if err := g.refuse("delete", key); err != nil {
		return err
	}
	return g.w.Delete(ctx, key, prev)
}

func (g *guard) refuse(op, key string) error {
	if cause := context.Cause(g.held); errors.Is(cause, dcs.ErrLeaseLost) {
		return fmt.Errorf("%s: %s %s: not applied: %w", g.store, op, key, cause)
	}
	if g.ended.Load() {
		return fmt.Errorf("%s: %s %s: not applied: %w: it has ended", g.store, op, key, dcs.ErrLeaseLost)
	}
	return nil
}

package topology

import (
	"context"
	"errors"
	"path"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// publish keeps the newest of news written at key under a lease, through lost leases and a store in trouble, until ctx
// ends. before, if any, is done anew with each lease; failed is told of each error.
func publish[T any](ctx context.Context, s dcs.Store, key string, news <-chan T, encode func(T) []byte,
	before func(context.Context) error, failed func(error),
) {
	var last *T // survives a lost lease
	retry(ctx, func(ctx context.Context) error {
		if before != nil {
			if err := before(ctx); err != nil {
				return err
			}
		}
		return s.Lease(ctx, func(ctx context.Context, w dcs.Writer) error {
			var version dcs.Version
			fresh := true // nothing is written under this lease yet
			for {
				if last != nil {
					next, err := w.Put(ctx, key, encode(*last), version)
					if fresh && errors.Is(err, dcs.ErrConflict) {
						// A run that was killed leaves its entry until its lease ends. It is looked for only here: a fleet
						// that starts would read all of itself, each one for itself.
						var snap dcs.Snapshot
						if snap, err = s.Get(ctx, path.Dir(key)); err == nil {
							predecessor, _ := snap.Get(key)
							next, err = w.Put(ctx, key, encode(*last), predecessor.Version)
						}
					}
					if err != nil {
						return err
					}
					version, fresh = next, false
				}
				select {
				case <-ctx.Done():
					return context.Cause(ctx)
				case v := <-news:
					last = &v
				}
			}
		})
	}, failed)
}

// offer puts v into a channel of one place; what nobody has taken yet is replaced. There is one sender.
func offer[T any](c chan T, v T) {
	select {
	case <-c:
	default:
	}
	c <- v
}

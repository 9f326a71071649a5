package patroni

import (
	"context"
	"iter"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// Watch follows a cluster: each element is its last confirmed content, with Stale saying why it could not be
// confirmed since. A non-nil error is the last pair: a bad path, refused credentials, or the end of ctx.
func Watch(ctx context.Context, r dcs.Reader, path string) iter.Seq2[Cluster, error] {
	return func(yield func(Cluster, error) bool) {
		for s, err := range r.Watch(ctx, path) {
			c, perr := Parse(path, s)
			if perr != nil {
				yield(c, perr)
				return
			}
			if !yield(c, err) || err != nil {
				return
			}
		}
	}
}

// Get reads a cluster once.
func Get(ctx context.Context, r dcs.Reader, path string) (Cluster, error) {
	s, err := r.Get(ctx, path)
	if err != nil {
		return Cluster{Path: path, Stale: err}, err
	}
	return Parse(path, s)
}

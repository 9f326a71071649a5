package consul

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// content is a directory as of one index.
type content struct {
	at      time.Time // before it was asked for
	index   uint64    // grows with every change below the directory, and may fall when Consul forgets what was deleted
	entries []dcs.Entry
	guarded bool // what no rule speaks of is hidden
}

// list asks once. With an index it is a blocking query: it returns when there is a higher one, or after wait.
//
// Both are consistent: the leader makes sure that it still leads, after it was asked and again after a wait that a
// change has ended; but not when the time has run out: then the answer is as old as the question, or older than the
// store if that was replaced.
func (s *Store) list(ctx context.Context, dir string, index uint64, wait time.Duration) (content, error) {
	c := content{at: time.Now()}
	q := &api.QueryOptions{RequireConsistent: true, WaitIndex: index, WaitTime: wait}
	pairs, meta, err := s.client.KV().List(prefix(dir), q.WithContext(ctx))
	if err != nil {
		return c, readError(dir, because(ctx, err))
	}
	if meta.ResultsFilteredByACLs {
		return c, readError(dir, fmt.Errorf("%w: Consul left out what the token may not see", errDenied))
	}
	if meta.LastIndex == 0 && len(pairs) == 0 {
		return c, readError(dir, errNotConsul)
	}
	c.index = max(1, meta.LastIndex)
	c.guarded = meta.DefaultACLPolicy == "deny"
	c.entries = make([]dcs.Entry, 0, len(pairs))
	for _, p := range pairs {
		if e, ok := entry(p); ok {
			c.entries = append(c.entries, e)
		}
	}
	return c, nil
}

// read is a consistent read that tells absence from hidden keys.
//
// Consul says that it left something out, but not to a client without a token: that may see an empty directory. A read
// of a single key is refused instead. And a server that has just become the leader may judge the list by rights that it
// has not read yet, so emptiness is believed when it is confirmed after the right was.
func (s *Store) read(ctx context.Context, dir string) (content, error) {
	c, err := s.list(ctx, dir, 0, 0)
	if err != nil || len(c.entries) > 0 && !c.guarded {
		return c, err
	}
	q := &api.QueryOptions{RequireConsistent: true}
	switch p, meta, err := s.client.KV().Get(prefix(dir), q.WithContext(ctx)); {
	case err != nil:
		return c, readError(dir, because(ctx, err))
	case p == nil && meta.LastIndex == 0:
		return c, readError(dir, errNotConsul)
	}
	if len(c.entries) > 0 {
		return c, nil
	}
	return s.list(ctx, dir, 0, 0)
}

func readError(dir string, err error) error {
	return fmt.Errorf("consul: read %s: %w%s", dir, err, hint(err, "key_prefix", prefix(dir), "read"))
}

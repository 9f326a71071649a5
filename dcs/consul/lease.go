package consul

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/internal/lease"
)

// What Consul accepts as a TTL of sessions.
const minTTL, maxTTL = 10 * time.Second, 24 * time.Hour

// Lease implements [dcs.Store] with a session of its own, renewed at a third of its TTL. No health check of a node can
// end it, so it outlives a restart of the agent; and nobody has to wait for a lock-delay after it.
//
// The end is judged by this process's monotonic clock, from before the last renewal that succeeded was sent. A process
// that was suspended notices late, as with every lease: whoever must not act twice checks the fencing token.
//
// A put that finds the key in the lock-delay of somebody else's session waits for its end as long as its context allows.
func (s *Store) Lease(ctx context.Context, fn func(ctx context.Context, w dcs.Writer) error) error {
	ttl := cmp.Or(s.TTL, defaultTTL)
	if ttl < minTTL || ttl > maxTTL {
		return fmt.Errorf("%w: consul: TTL is %v, not between %v and %v", dcs.ErrInvalid, ttl, minTTL, maxTTL)
	}
	asked := time.Now()
	id, err := s.session(ctx, ttl)
	if err != nil {
		return err
	}
	l := lease.Lease{
		Asked: asked,
		TTL:   ttl,
		Renew: func(ctx context.Context) (time.Duration, error) { return ttl, s.renew(ctx, id) },
		Release: func(ctx context.Context) { // else it runs out
			_, _ = s.client.Session().Destroy(id, new(api.WriteOptions).WithContext(ctx))
		},
	}
	return l.Write(ctx, "consul", writer{s, id}, fn)
}

// session makes a session. The client's own call leaves out a lock-delay of zero, which then counts as 15 seconds.
func (s *Store) session(ctx context.Context, ttl time.Duration) (id string, err error) {
	if err := context.Cause(ctx); err != nil {
		return "", fmt.Errorf("consul: grant lease: %w", err)
	}
	ctx, cancel := s.bound(ctx)
	defer cancel()
	in := map[string]any{
		"Name": "pgconvoy", "TTL": ttl.String(), "Behavior": api.SessionBehaviorDelete, "LockDelay": "0s", "NodeChecks": []string{},
	}
	var out struct{ ID string }
	_, err = s.client.Raw().Write("/v1/session/create", in, &out, new(api.WriteOptions).WithContext(ctx))
	if err == nil && out.ID == "" {
		err = errors.New("the answer has no ID")
	}
	if err != nil {
		return "", fmt.Errorf("consul: grant lease: create session: %w%s", because(ctx, err), hint(err, "session_prefix", "", "write"))
	}
	return out.ID, nil
}

func (s *Store) renew(ctx context.Context, id string) error {
	renewed, _, err := s.client.Session().Renew(id, new(api.WriteOptions).WithContext(ctx))
	if err != nil {
		return fmt.Errorf("consul: renew session %s: %w", id, err)
	}
	if renewed != nil {
		return nil
	}
	// A server that has just become the leader says so before it has read its log.
	q := &api.QueryOptions{RequireConsistent: true}
	known, meta, err := s.client.Session().Info(id, q.WithContext(ctx))
	switch {
	case err != nil:
		return fmt.Errorf("consul: renew session %s: %w", id, err)
	case meta.ResultsFilteredByACLs: // by rights that a new leader has not read yet, perhaps
		return fmt.Errorf("consul: renew session %s: %w%s", id, errDenied, hint(errDenied, "session_prefix", "", "write"))
	case known != nil:
		return fmt.Errorf("consul: renew session %s: a server did not know it yet", id)
	}
	return fmt.Errorf("consul: renew session %s: %w: Consul has ended it", id, dcs.ErrLeaseLost)
}

// writer writes keys that belong to a session, also over a key that belonged to another.
type writer struct {
	s       *Store
	session string
}

func (w writer) Put(ctx context.Context, key string, value []byte, prev dcs.Version) (dcs.Version, error) {
	return w.s.put(ctx, change{key: key, value: value, prev: prev, session: w.session})
}

func (w writer) Delete(ctx context.Context, key string, prev dcs.Version) error {
	return w.s.Delete(ctx, key, prev)
}

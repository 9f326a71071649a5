package etcd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/internal/lease"
)

// Lease implements [dcs.Store] with an etcd lease, renewed at a third of its TTL.
//
// The end is judged by this process's monotonic clock, from before the last renewal that succeeded was sent. A process
// that was suspended notices late, as with every lease: whoever must not act twice checks the fencing token.
func (s *Store) Lease(ctx context.Context, fn func(ctx context.Context, w dcs.Writer) error) error {
	ttl := cmp.Or(s.TTL, defaultTTL)
	if ttl < time.Second {
		return fmt.Errorf("%w: etcd: TTL is %v, less than a second", dcs.ErrInvalid, ttl)
	}
	asked := time.Now()
	granted, err := s.grant(ctx, ttl)
	if err != nil {
		return err
	}
	l := lease.Lease{
		Asked: asked,
		TTL:   seconds(granted.TTL),
		Renew: func(ctx context.Context) (time.Duration, error) {
			resp, err := s.lease.KeepAliveOnce(ctx, granted.ID)
			switch {
			case errors.Is(err, rpctypes.ErrLeaseNotFound):
				return 0, fmt.Errorf("etcd: renew lease: %w: %w", dcs.ErrLeaseLost, err)
			case err != nil:
				s.redial()
				return 0, fmt.Errorf("etcd: renew lease: %w%s", err, s.connection())
			}
			return seconds(resp.TTL), nil
		},
		Release: func(ctx context.Context) { _, _ = s.lease.Revoke(ctx, granted.ID) }, // else it runs out
	}
	return l.Write(ctx, "etcd", writer{s, granted.ID}, fn)
}

func (s *Store) grant(ctx context.Context, ttl time.Duration) (*clientv3.LeaseGrantResponse, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("etcd: grant lease: %w", err)
	}
	ctx, cancel := s.bound(ctx)
	defer cancel()
	granted, err := s.lease.Grant(ctx, int64((ttl+time.Second-1)/time.Second))
	if err != nil {
		return nil, fmt.Errorf("etcd: grant lease: %w%s", because(ctx, err), s.connection())
	}
	return granted, nil
}

func seconds(n int64) time.Duration { return time.Duration(n) * time.Second }

// writer writes keys that belong to a lease, also over a key that belonged to another.
type writer struct {
	s  *Store
	id clientv3.LeaseID
}

func (w writer) Put(ctx context.Context, key string, value []byte, prev dcs.Version) (dcs.Version, error) {
	return w.s.put(ctx, key, value, prev, clientv3.WithLease(w.id))
}

func (w writer) Delete(ctx context.Context, key string, prev dcs.Version) error {
	return w.s.Delete(ctx, key, prev)
}

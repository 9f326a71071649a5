package memory

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/internal/lease"
)

const (
	defaultTTL       = 10 * time.Second
	defaultReconfirm = 10 * time.Second
	defaultTimeout   = 5 * time.Second
)

func (s *Store) ttl() time.Duration { return cmp.Or(s.TTL, defaultTTL) }

// Lease implements [dcs.Store].
func (c *Client) Lease(ctx context.Context, fn func(ctx context.Context, w dcs.Writer) error) error {
	ttl := c.s.ttl()
	if ttl < 0 {
		return fmt.Errorf("%w: memory: TTL is %v", dcs.ErrInvalid, ttl)
	}
	asked := time.Now()
	var id uint64
	var refused error
	err := c.send(ctx, func() { id, refused = c.s.grant(ttl) })
	if err == nil {
		err = refused
	}
	if err != nil {
		return fmt.Errorf("memory: grant lease: %w", err)
	}
	l := lease.Lease{
		Asked: asked,
		TTL:   ttl,
		Renew: func(ctx context.Context) (time.Duration, error) {
			var refused error
			if err := c.send(ctx, func() { refused = c.s.renew(id, ttl) }); err != nil {
				return 0, fmt.Errorf("memory: renew lease: %w", err)
			}
			return ttl, refused
		},
		Release: func(ctx context.Context) {
			_ = c.send(ctx, func() { c.s.release(id) }) // else it runs out
		},
	}
	return l.Write(ctx, "memory", writer{c, id}, fn)
}

func (s *Store) grant(ttl time.Duration) (uint64, error) {
	if s.down != nil {
		return 0, s.down.err
	}
	if s.leases == nil {
		s.leases = make(map[uint64]time.Time)
	}
	s.lastLease++
	s.leases[s.lastLease] = time.Now().Add(ttl)
	return s.lastLease, nil
}

func (s *Store) renew(id uint64, ttl time.Duration) error {
	if s.down != nil {
		return fmt.Errorf("memory: renew lease: %w", s.down.err)
	}
	now := time.Now()
	s.expire(now)
	if _, ok := s.leases[id]; !ok {
		return fmt.Errorf("memory: renew lease: %w: it has run out", dcs.ErrLeaseLost)
	}
	s.leases[id] = now.Add(ttl)
	return nil
}

// release ends a lease; when the store is down it runs out by itself.
func (s *Store) release(id uint64) {
	if s.down == nil {
		s.end(id)
	}
}

// expire ends the leases whose time is over. Nothing runs in the background: every call and every watch does it.
func (s *Store) expire(now time.Time) {
	for id, ends := range s.leases {
		if !now.Before(ends) {
			s.end(id)
		}
	}
}

// end removes a lease and its keys.
func (s *Store) end(id uint64) {
	delete(s.leases, id)
	gone := false
	for key, e := range s.entries {
		if e.lease == id {
			delete(s.entries, key)
			gone = true
		}
	}
	if gone {
		s.revision++
		s.changed()
	}
}

// writer writes keys that belong to a lease.
type writer struct {
	c  *Client
	id uint64
}

func (w writer) Put(ctx context.Context, key string, value []byte, prev dcs.Version) (dcs.Version, error) {
	return w.c.put(ctx, key, value, prev, w.id)
}

func (w writer) Delete(ctx context.Context, key string, prev dcs.Version) error {
	return w.c.Delete(ctx, key, prev)
}

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
)

// Lease implements [dcs.Store].
func (s *Store) Lease(ctx context.Context, fn func(ctx context.Context, w dcs.Writer) error) error {
	ttl := cmp.Or(s.TTL, defaultTTL)
	if ttl < 0 {
		return fmt.Errorf("%w: memory: TTL is %v", dcs.ErrInvalid, ttl)
	}
	asked := time.Now()
	id, err := s.grant(ctx, asked.Add(ttl))
	if err != nil {
		return err
	}
	l := lease.Lease{
		Asked:   asked,
		TTL:     ttl,
		Renew:   func(context.Context) (time.Duration, error) { return ttl, s.renew(id, ttl) },
		Release: func(context.Context) { s.release(id) },
	}
	return l.Hold(ctx, func(ctx context.Context) error { return fn(ctx, writer{s, id}) })
}

func (s *Store) grant(ctx context.Context, ends time.Time) (uint64, error) {
	if err := context.Cause(ctx); err != nil {
		return 0, fmt.Errorf("memory: lease: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down != nil {
		return 0, fmt.Errorf("memory: lease: %w", s.down.err)
	}
	if s.leases == nil {
		s.leases = make(map[uint64]time.Time)
	}
	s.revision++
	s.leases[s.revision] = ends
	return s.revision, nil
}

func (s *Store) renew(id uint64, ttl time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down != nil {
		return s.down.err
	}
	now := time.Now()
	s.expire(now)
	if _, ok := s.leases[id]; !ok {
		return fmt.Errorf("memory: %w: it has run out", dcs.ErrLeaseLost)
	}
	s.leases[id] = now.Add(ttl)
	return nil
}

// release ends a lease; when the store is down it runs out by itself.
func (s *Store) release(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
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
	s  *Store
	id uint64
}

func (w writer) Put(ctx context.Context, key string, value []byte, prev dcs.Version) (dcs.Version, error) {
	return w.s.put(ctx, key, value, prev, w.id)
}

func (w writer) Delete(ctx context.Context, key string, prev dcs.Version) error {
	return w.s.Delete(ctx, key, prev)
}

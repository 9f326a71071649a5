// Package memory is a configuration store in this process, under the same contract as the real ones: for tests and
// examples. It can be taken down and brought back.
//
//	store := memory.New()
//	store.SetDown(errors.New("no quorum")) // every call fails, watches say so, leases run out
//	store.SetDown(nil)
//
// A Store starts nothing: no goroutine, channel or timer lives outside a call, so a testing/synctest bubble owns
// all of what its calls make.
package memory

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
)

var _ dcs.Store = (*Store)(nil)

// Store is an empty store until it is written to. The zero value works; it must not be copied after first use.
type Store struct {
	// TTL of leases; zero: 10 seconds. A lease is renewed at a third of it.
	TTL time.Duration
	// Reconfirm is the interval at which a watch confirms its content, changed or not; zero: 10 seconds.
	Reconfirm time.Duration

	mu       sync.Mutex // never held across a wait
	down     *outage    // nil: up
	revision uint64
	entries  map[string]entry
	leases   map[uint64]time.Time // when each lease ends
	watches  map[chan<- struct{}]struct{}
}

// outage is one call of SetDown: a pointer tells one from the next.
type outage struct{ err error }

type entry struct {
	dcs.Entry
	lease uint64 // zero: none
}

// New returns an empty store.
func New() *Store { return new(Store) }

// SetDown makes every call fail with err; nil brings the store back. While it is down leases are not renewed, but
// their time runs, and watches carry err as Stale.
func (s *Store) SetDown(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = nil
	if err != nil {
		s.down = &outage{err}
	}
	s.changed()
}

// Get implements [dcs.Reader].
func (s *Store) Get(ctx context.Context, dir string) (dcs.Snapshot, error) {
	if err := dcs.CheckKey("dir", dir); err != nil {
		return dcs.Snapshot{}, err
	}
	if err := context.Cause(ctx); err != nil {
		return dcs.Snapshot{}, fmt.Errorf("memory: read %s: %w", dir, err)
	}
	at := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down != nil {
		return dcs.Snapshot{}, fmt.Errorf("memory: read %s: %w", dir, s.down.err)
	}
	s.expire(at)
	return dcs.NewSnapshot(at, s.below(dir)), nil
}

// Put implements [dcs.Writer].
func (s *Store) Put(ctx context.Context, key string, value []byte, prev dcs.Version) (dcs.Version, error) {
	return s.put(ctx, key, value, prev, 0)
}

func (s *Store) put(ctx context.Context, key string, value []byte, prev dcs.Version, lease uint64) (dcs.Version, error) {
	if err := dcs.CheckKey("key", key); err != nil {
		return dcs.Version{}, err
	}
	if err := dcs.CheckValue(key, value); err != nil {
		return dcs.Version{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old, err := s.check(ctx, "put", key, prev)
	if err != nil {
		return dcs.Version{}, err
	}
	if lease == 0 {
		lease = old.lease // a plain write does not change whom the key belongs to
	} else if _, ok := s.leases[lease]; !ok {
		return dcs.Version{}, fmt.Errorf("memory: put %s: not applied: %w", key, dcs.ErrLeaseLost)
	}
	s.revision++
	e := entry{lease: lease, Entry: dcs.Entry{
		Key:     key,
		Value:   append([]byte(nil), value...),
		Version: dcs.Version{Created: old.Version.Created, Modified: s.revision},
	}}
	if e.Version.Created == 0 {
		e.Version.Created = s.revision
	}
	if s.entries == nil {
		s.entries = make(map[string]entry)
	}
	s.entries[key] = e
	s.changed()
	return e.Version, nil
}

// Delete implements [dcs.Writer].
func (s *Store) Delete(ctx context.Context, key string, prev dcs.Version) error {
	if err := dcs.CheckKey("key", key); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.check(ctx, "delete", key, prev); err != nil {
		return err
	}
	if prev == (dcs.Version{}) {
		return fmt.Errorf("memory: delete %s: %w: it is absent", key, dcs.ErrConflict)
	}
	s.revision++
	delete(s.entries, key)
	s.changed()
	return nil
}

// check is what every write begins with. It returns what is there now.
func (s *Store) check(ctx context.Context, op, key string, prev dcs.Version) (entry, error) {
	if err := context.Cause(ctx); err != nil {
		return entry{}, fmt.Errorf("memory: %s %s: not applied: %w", op, key, err)
	}
	if s.down != nil {
		return entry{}, fmt.Errorf("memory: %s %s: not applied: %w", op, key, s.down.err)
	}
	s.expire(time.Now())
	old := s.entries[key]
	if old.Version != prev {
		return entry{}, fmt.Errorf("memory: %s %s: %w", op, key, dcs.ErrConflict)
	}
	return old, nil
}

// below lists the entries of a directory.
func (s *Store) below(dir string) []dcs.Entry {
	prefix := dcs.Prefix(dir)
	var list []dcs.Entry
	for key, e := range s.entries {
		if strings.HasPrefix(key, prefix) {
			list = append(list, e.Entry)
		}
	}
	return list
}

// changed wakes every watch. The channels have room for one: a watch that is already to wake reads all.
func (s *Store) changed() {
	for c := range s.watches {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

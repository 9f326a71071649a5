// Package memory is a configuration store in this process, under the same contract as the real ones: for tests and
// examples. It can be broken as a real one can.
//
//	store := memory.New()
//	store.SetDown(errors.New("no quorum")) // every call fails, watches say so, leases run out
//	store.SetDown(nil)
//
//	a := store.Client()  // a Store is a client of itself; further ones have a path of their own
//	heal := a.Cut()      // for a alone
//	heal()
//
// A Store starts nothing: no goroutine, channel or timer lives outside a call, so a testing/synctest bubble owns
// all of what its calls make.
package memory

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
)

var _ dcs.Store = (*Store)(nil)

// Store is an empty store until it is written to. The zero value works; it must not be copied after first use. As a
// [dcs.Store] it is a client whose path is never broken; [Store.Client] makes others.
type Store struct {
	// TTL of leases; zero: 10 seconds. A lease is renewed at a third of it.
	TTL time.Duration
	// Reconfirm is the interval at which a watch confirms its content, changed or not; zero: 10 seconds.
	Reconfirm time.Duration
	// Timeout bounds a call that gets no answer, if its context has no deadline; zero: 5 seconds.
	Timeout time.Duration

	mu        sync.Mutex // never held across a wait
	down      *outage    // nil: up
	revision  uint64
	entries   map[string]entry
	leases    map[uint64]time.Time // when each lease ends
	lastLease uint64               // never goes back, whatever is restored
	waits     map[chan<- struct{}]struct{}
}

// outage is a reason why there is no answer: a pointer tells one from the next.
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

// Expire ends the lease that key belongs to, as if its time were over. A key without a lease stays.
func (s *Store) Expire(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id := s.entries[key].lease; id != 0 {
		s.end(id)
	}
}

// Backup takes a copy of the content. restore replaces the content by that copy: keys are back at their old versions,
// and leases of that time begin anew.
func (s *Store) Backup() (restore func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire(time.Now())
	revision, entries, leases := s.revision, maps.Clone(s.entries), maps.Clone(s.leases)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.revision, s.entries, s.leases = revision, maps.Clone(entries), maps.Clone(leases)
		for id := range s.leases {
			s.leases[id] = time.Now().Add(s.ttl())
		}
		s.changed()
	}
}

// Get implements [dcs.Reader].
func (s *Store) Get(ctx context.Context, dir string) (dcs.Snapshot, error) {
	return s.Client().Get(ctx, dir)
}

// Watch implements [dcs.Reader].
func (s *Store) Watch(ctx context.Context, dir string) iter.Seq2[dcs.Snapshot, error] {
	return s.Client().Watch(ctx, dir)
}

// Put implements [dcs.Writer].
func (s *Store) Put(ctx context.Context, key string, value []byte, prev dcs.Version) (dcs.Version, error) {
	return s.Client().Put(ctx, key, value, prev)
}

// Delete implements [dcs.Writer].
func (s *Store) Delete(ctx context.Context, key string, prev dcs.Version) error {
	return s.Client().Delete(ctx, key, prev)
}

// Lease implements [dcs.Store].
func (s *Store) Lease(ctx context.Context, fn func(ctx context.Context, w dcs.Writer) error) error {
	return s.Client().Lease(ctx, fn)
}

// put writes a key under a lease; zero: under the one it has.
func (s *Store) put(key string, value []byte, prev dcs.Version, lease uint64) (dcs.Version, error) {
	old, err := s.at(key, prev)
	if _, ok := s.leases[lease]; lease != 0 && !ok {
		err = dcs.ErrLeaseLost
	}
	if err != nil {
		return dcs.Version{}, err
	}
	if lease == 0 {
		lease = old.lease // a plain write does not change whom the key belongs to
	}
	s.revision++
	e := entry{lease: lease, Entry: dcs.Entry{
		Key:     key,
		Value:   value,
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

func (s *Store) remove(key string, prev dcs.Version) error {
	if _, err := s.at(key, prev); err != nil {
		return err
	}
	if prev == (dcs.Version{}) {
		return fmt.Errorf("%w: it is absent", dcs.ErrConflict)
	}
	s.revision++
	delete(s.entries, key)
	s.changed()
	return nil
}

// at is what every write begins with: the key as it is, if it is at version prev.
func (s *Store) at(key string, prev dcs.Version) (entry, error) {
	if s.down != nil {
		return entry{}, s.down.err
	}
	s.expire(time.Now())
	old := s.entries[key]
	if old.Version != prev {
		return entry{}, dcs.ErrConflict
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

// changed wakes every watch and every call that waits. The channels have room for one: who is already to wake reads all.
func (s *Store) changed() {
	for c := range s.waits {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// wait registers a channel that is signalled at every change, until forget is called.
func (s *Store) wait() (wake <-chan struct{}, forget func()) {
	c := make(chan struct{}, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waits == nil {
		s.waits = make(map[chan<- struct{}]struct{})
	}
	s.waits[c] = struct{}{}
	return c, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.waits, c)
	}
}

var (
	errCut    = errors.New("no connection")
	errSilent = errors.New("no answer")
)

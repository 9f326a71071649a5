package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/internal/retry"
)

const releaseWithin = 2 * time.Second

// owner knows the keys of one lease: a session may have several.
type owner struct {
	s       *Store
	session int64
	held    context.Context // fn's

	mu   sync.Mutex
	over bool
	keys map[string]owned
}

// check refuses what the lease may not write any more.
func (o *owner) check() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.over {
		return fmt.Errorf("%w: it has ended", dcs.ErrLeaseLost)
	}
	if err := context.Cause(o.held); errors.Is(err, dcs.ErrLeaseLost) {
		return err
	}
	return o.lost()
}

// lost is an error when the client knows that the session is over.
func (o *owner) lost() error {
	if o.s.conn.SessionID() != o.session {
		return fmt.Errorf("%w: the session has expired", dcs.ErrLeaseLost)
	}
	return nil
}

// has reports whether a node is this lease's.
func (o *owner) has(key string, stat *zk.Stat) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	p, ok := o.keys[key]
	return ok && stat.EphemeralOwner == o.session && stat.Czxid == p.created
}

// forget takes it that a key was deleted.
func (o *owner) forget(key string, v dcs.Version) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if uint64(o.keys[key].created) == v.Created {
		delete(o.keys, key)
	}
}

// made takes the outcome of the making of a node, whenever it comes, and returns it. What was made too late, after the end
// of the lease or in a later session, is removed again.
func (o *owner) made(ctx context.Context, key string, value []byte, stat *zk.Stat, err error) error {
	if err != nil && refused(err) {
		return err
	}
	p := owned{session: o.session, value: value}
	if err == nil {
		p.session, p.created = stat.EphemeralOwner, stat.Czxid
	}
	o.mu.Lock()
	late := o.over || p.session != o.session
	if !late {
		o.keys[key] = p
	}
	o.mu.Unlock()
	if !late {
		return err
	}
	go o.s.remove(context.WithoutCancel(ctx), map[string]owned{key: p})
	if err != nil {
		return err
	}
	return unsent{fmt.Errorf("%w: the key was made after its end, and is removed again", dcs.ErrLeaseLost)}
}

// end ends the lease and deletes its keys, within two seconds if it can, and else later.
func (o *owner) end(ctx context.Context) {
	o.mu.Lock()
	o.over = true
	keys := o.keys
	o.mu.Unlock()
	ctx = context.WithoutCancel(ctx)
	rctx, cancel := context.WithTimeout(ctx, releaseWithin)
	defer cancel()
	if left := o.s.tryRemove(rctx, keys); len(left) > 0 {
		go o.s.remove(ctx, left)
	}
}

// remove deletes keys of leases as soon as that can be done. It ends when they are gone, or their session is, or the
// connection is closed.
func (s *Store) remove(ctx context.Context, keys map[string]owned) {
	for n := 1; ; n++ {
		tctx, cancel := context.WithTimeout(ctx, defaultTimeout)
		keys = s.tryRemove(tctx, keys)
		cancel()
		if len(keys) == 0 || !retry.Wait(ctx, retry.Backoff(n)) {
			return
		}
	}
}

// tryRemove returns the keys of which it does not know that they are gone.
func (s *Store) tryRemove(ctx context.Context, keys map[string]owned) (left map[string]owned) {
	left = maps.Clone(keys)
	var mu sync.Mutex
	_, _ = each(ctx, slices.Collect(maps.Keys(keys)), func(ctx context.Context, key string) (struct{}, error) {
		if s.removed(ctx, key, keys[key]) {
			mu.Lock()
			defer mu.Unlock()
			delete(left, key)
		}
		return struct{}{}, nil
	})
	return left
}

// removed deletes a node if it is still this one, and reports whether it is gone.
func (s *Store) removed(ctx context.Context, key string, p owned) bool {
	for {
		if s.conn.SessionID() != p.session {
			return true // the servers remove it
		}
		r, err := call(ctx, s, func() (reading, error) {
			data, stat, err := s.conn.Get(s.Root + key)
			return reading{data: data, stat: stat}, err
		})
		if err == nil && p.is(r.data, r.stat) {
			_, err = call(ctx, s, func() (struct{}, error) { return struct{}{}, s.conn.Delete(s.Root+key, r.stat.Version) })
		}
		switch {
		case err == nil || matches(err, zk.ErrNoNode, errClosed, zk.ErrNoAuth):
			return true // gone, somebody else's, or nothing that could be done
		case errors.Is(err, zk.ErrBadVersion): // written by somebody else meanwhile
		default:
			return false
		}
	}
}

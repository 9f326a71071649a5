package zookeeper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/internal/lease"
	"github.com/pgconvoy/pgconvoy/dcs/internal/retry"
)

// Lease implements [dcs.Store] with the connection's session: the keys are ephemeral nodes. A lease is another set of
// keys in that session, which are deleted when fn returns; the session goes on. It needs Store.TTL.
//
// The client keeps the session alive. What proves that it lives is a transaction that changes nothing, on which a majority
// of the servers agrees, four times in a TTL. The leader learns of a session's life from the server that the client is connected to, half a tick late, and
// what that server has not passed on dies with it. So a lease counts on 0.63 of the TTL after the last proof (0.54 after
// the first) and is given up then; that is safe if the TTL is at least four ticks of the servers. The end is judged by
// this process's monotonic clock. A process that was suspended notices late, as with every lease: whoever must not act
// twice checks the fencing token.
//
// A lease that is given up while its session lives on leaves no keys either: they are deleted as soon as there is a
// connection, by a goroutine that ends with that, with the session, or when the connection is closed.
func (s *Store) Lease(ctx context.Context, fn func(ctx context.Context, w dcs.Writer) error) error {
	if s.TTL < time.Second {
		return fmt.Errorf("%w: zookeeper: TTL is %v, less than a second; give the timeout of the connection's session", dcs.ErrInvalid, s.TTL)
	}
	if s.Root != "" {
		if err := dcs.CheckKey("Root", s.Root); err != nil {
			return err
		}
	}
	asked, session, err := s.session(ctx)
	if err != nil {
		return fmt.Errorf("zookeeper: lease: %w", err)
	}
	o := &owner{s: s, session: session, keys: make(map[string]owned)}
	l := lease.Lease{
		Asked:   asked,
		TTL:     s.TTL * 6 / 10, // the client's last sign of life may be a third of the TTL old
		Renew:   func(ctx context.Context) (time.Duration, error) { return s.TTL * 7 / 10, o.prove(ctx) },
		Release: func(context.Context) {}, // end does it, for a lost one too: the session may live on
	}
	defer o.end(ctx)
	return l.Hold(ctx, func(ctx context.Context) error { return o.hold(ctx, fn) })
}

// hold runs fn until its end; fn's context ends at once when the session is known to be over.
func (o *owner) hold(ctx context.Context, fn func(ctx context.Context, w dcs.Writer) error) error {
	ctx, lose := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer lose(nil)
	wg.Go(func() {
		for retry.Wait(ctx, lookEvery) {
			if err := o.lost(); err != nil {
				lose(err)
			}
		}
	})
	o.held = ctx
	err := fn(ctx, writer{o})
	if cause := context.Cause(ctx); errors.Is(err, context.Canceled) && !errors.Is(err, cause) && errors.Is(cause, dcs.ErrLeaseLost) {
		err = fmt.Errorf("%w (%w)", err, cause)
	}
	return err
}

// session proves that there is one, and returns the moment before that was asked.
func (s *Store) session(ctx context.Context) (asked time.Time, session int64, err error) {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	err = again(ctx, func() (err error) {
		asked = time.Now()
		session, err = s.barrier(ctx)
		return err
	})
	return asked, session, err
}

// prove has the servers agree that the session lives. It is given a place at once, whoever else waits for one.
func (o *owner) prove(ctx context.Context) error {
	if err := o.lost(); err != nil {
		return err
	}
	err := o.s.ready(ctx)
	if err == nil {
		_, err = leave(ctx, o.s, func() (struct{}, error) { return struct{}{}, o.s.commit() })
	}
	if lost := o.lost(); lost != nil {
		return lost
	}
	if errors.Is(err, zk.ErrSessionExpired) {
		return fmt.Errorf("zookeeper: %w: %w", dcs.ErrLeaseLost, err)
	}
	if err != nil {
		return fmt.Errorf("zookeeper: prove session: %w", err)
	}
	return nil
}

// writer writes keys that belong to a lease, also over a key that belonged to another.
type writer struct{ o *owner }

func (w writer) Put(ctx context.Context, key string, value []byte, prev dcs.Version) (dcs.Version, error) {
	if err := w.o.check(); err != nil {
		return dcs.Version{}, fmt.Errorf("zookeeper: put %s: not applied: %w", key, err)
	}
	return w.o.s.put(ctx, key, value, prev, w.o)
}

func (w writer) Delete(ctx context.Context, key string, prev dcs.Version) error {
	if err := w.o.check(); err != nil {
		return fmt.Errorf("zookeeper: delete %s: not applied: %w", key, err)
	}
	err := w.o.s.Delete(ctx, key, prev)
	if err == nil {
		w.o.forget(key, prev)
	}
	return err
}

// owned is what a lease put at a key.
type owned struct {
	session int64
	created int64  // czxid; 0: no answer came, it is there or not
	value   []byte // that of an unanswered put
}

// is reports whether a node is it.
func (p owned) is(data []byte, stat *zk.Stat) bool {
	return stat.EphemeralOwner == p.session &&
		(stat.Czxid == p.created || p.created == 0 && bytes.Equal(data, p.value))
}

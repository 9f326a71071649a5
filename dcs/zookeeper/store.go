package zookeeper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/pgconvoy/pgconvoy/dcs"
)

var _ dcs.Store = (*Store)(nil)

// Store is a ZooKeeper ensemble as a [dcs.Store]. Make one with [New]. Its fields may be set before the first call and
// must not be changed after.
type Store struct {
	// TTL is the session timeout that the client and the servers have agreed on; required by Lease, at least a second.
	// The client keeps it to itself: give the timeout that the connection was opened with, if it is between the servers'
	// minSessionTimeout and maxSessionTimeout (2 and 20 ticks, 4 to 40 seconds, unless configured), and else the bound.
	// A value that is too large is dangerous, one that is too small is not.
	TTL time.Duration
	// Reconfirm is the interval at which a watch confirms its content by a linearizable read, changed or not; zero: 10
	// seconds.
	Reconfirm time.Duration
	// Timeout bounds a call whose context has no deadline; zero: 5 seconds.
	Timeout time.Duration
	// Root is put before every key, as a chroot, and taken off what comes back; empty: none. It need not exist.
	Root string
	// ACL is that of the nodes that the store makes, parents too; empty: zk.WorldACL(zk.PermAll).
	ACL []zk.ACL

	conn    *zk.Conn
	arms    arms
	slots   chan struct{} // a place for each call that is under way
	probing chan struct{} // one place
}

const (
	defaultReconfirm = 10 * time.Second
	defaultTimeout   = 5 * time.Second
	// Calls of one store under way at a time, and those of one read or watch.
	maxCalls, maxReads = 64, 16
)

// New returns a store over conn, which stays the caller's: it must stay open while the store is used. Use one store for
// all that is done over one connection: its watches share what the connection cannot give back.
func New(conn *zk.Conn) *Store {
	return &Store{conn: conn, slots: make(chan struct{}, maxCalls), probing: make(chan struct{}, 1)}
}

// Get implements [dcs.Reader]: a barrier, then the nodes one by one, several at a time.
func (s *Store) Get(ctx context.Context, dir string) (dcs.Snapshot, error) {
	if err := s.check("dir", dir); err != nil {
		return dcs.Snapshot{}, err
	}
	ctx, cancel := s.bound(ctx)
	defer cancel()
	var at time.Time
	var entries []dcs.Entry
	err := again(ctx, func() (err error) {
		at = time.Now()
		entries, err = s.read(ctx, dir)
		return err
	})
	if err != nil {
		return dcs.Snapshot{}, fmt.Errorf("zookeeper: read %s: %w", dir, err)
	}
	return dcs.NewSnapshot(at, entries), nil
}

// read reads what is below dir, level by level.
func (s *Store) read(ctx context.Context, dir string) ([]dcs.Entry, error) {
	session, err := s.barrier(ctx)
	if err != nil {
		return nil, err
	}
	var entries []dcs.Entry
	level := []string{dir}
	for len(level) > 0 {
		found, err := each(ctx, level, func(ctx context.Context, key string) (reading, error) { return s.readNode(ctx, key, key == dir) })
		if err != nil {
			return nil, err
		}
		var next []string
		for i, r := range found {
			if e, ok := r.entry(level[i]); ok && level[i] != dir {
				entries = append(entries, e)
			}
			for _, name := range r.names {
				next = append(next, level[i]+"/"+name)
			}
		}
		level = next
	}
	if s.conn.SessionID() != session {
		return nil, errNewSession // the other server may have been behind
	}
	return entries, nil
}

// readNode reads a node and lists what is below it. A node that is gone is empty.
func (s *Store) readNode(ctx context.Context, key string, root bool) (reading, error) {
	r := reading{stat: &zk.Stat{NumChildren: 1}}
	var err error
	if !root { // whose own value is no concern, and may not be readable
		r, err = call(ctx, s, func() (reading, error) {
			data, stat, err := s.conn.Get(s.Root + key)
			return reading{data: data, stat: stat}, err
		})
	}
	if err == nil && r.stat.NumChildren > 0 {
		r.names, err = call(ctx, s, func() ([]string, error) {
			names, _, err := s.conn.Children(s.Root + key)
			return names, err
		})
	}
	if errors.Is(err, zk.ErrNoNode) {
		return reading{}, nil
	}
	return r, err
}

// sync brings the server that the connection leads to up to the leader, so that what is read in this session afterwards is
// as new, and returns the session. Who answers may lead no more, for some ticks: nothing is decided by it alone.
func (s *Store) sync(ctx context.Context) (session int64, err error) {
	return s.pass(ctx, func() error {
		_, err := s.conn.Sync("/")
		return err
	})
}

// barrier is a sync that a majority of the servers takes part in, so that reads which follow in this session are
// linearizable, and that the session is known to live.
func (s *Store) barrier(ctx context.Context) (session int64, err error) { return s.pass(ctx, s.commit) }

func (s *Store) pass(ctx context.Context, through func() error) (session int64, err error) {
	if err := s.ready(ctx); err != nil {
		return 0, err
	}
	session = s.conn.SessionID()
	if _, err := call(ctx, s, func() (struct{}, error) { return struct{}{}, through() }); err != nil {
		return session, err
	}
	return session, s.still(session)
}

// commit has the servers agree on a transaction that changes nothing. Where the root may not be read it is a sync.
func (s *Store) commit() error {
	_, err := s.conn.Multi(&zk.CheckVersionRequest{Path: "/", Version: -1})
	if errors.Is(err, zk.ErrNoAuth) {
		_, err = s.conn.Sync("/")
	}
	return err
}

// bound gives ctx the store's own deadline if it has none.
func (s *Store) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, cmp.Or(s.Timeout, defaultTimeout))
}

// Package etcd is the etcd back end (version 3 API) of package dcs, over the caller's own client.
//
//	client, err := clientv3.New(clientv3.Config{Endpoints: endpoints, TLS: tls, Username: user, Password: password})
//	...
//	store := etcd.New(client)
//
// Give the client a DialKeepAliveTime (5 s, say) and DialKeepAliveTimeout, so that a connection that died silently is
// noticed and replaced; without them a Watch reports Stale all the same, and recovers when TCP gives up.
//
// Reads are linearizable, so a watch needs no more than read permission on the prefix of its directory, ended by a
// slash ("/service/demo/"). Writing needs readwrite on the prefixes written to.
package etcd

import (
	"cmp"
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pgconvoy/pgconvoy/dcs"
)

var _ dcs.Store = (*Store)(nil)

// Store is an etcd cluster as a [dcs.Store]. Make one with [New]. Its fields may be set before the first call and
// must not be changed after.
type Store struct {
	// TTL of leases; zero: 10 seconds. At least one second; etcd counts in whole ones, so it is rounded up, and a
	// server may grant more.
	TTL time.Duration
	// Reconfirm is the interval at which a watch confirms its content by a linearizable read, changed or not, and
	// checks that its stream of events is alive; zero: 10 seconds.
	Reconfirm time.Duration
	// Timeout bounds a call whose context has no deadline; zero: 5 seconds.
	Timeout time.Duration

	client *clientv3.Client
	kv     clientv3.KV
	lease  clientv3.Lease
}

const (
	defaultTTL       = 10 * time.Second
	defaultReconfirm = 10 * time.Second
	defaultTimeout   = 5 * time.Second
)

// New returns a store over client, which stays the caller's: it must stay open while the store is used.
//
// The store speaks to the servers through the client's connection, with its TLS and credentials. Wrappers that were
// put around the client's KV, Watcher and Lease (packages namespace, leasing, ordering) are not used: paths are
// absolute, and an answer from a local cache is not a linearizable one.
func New(client *clientv3.Client) *Store {
	return &Store{client: client, kv: clientv3.NewKV(client), lease: clientv3.NewLease(client)}
}

// Get implements [dcs.Reader] with one read.
func (s *Store) Get(ctx context.Context, dir string) (dcs.Snapshot, error) {
	if err := dcs.CheckKey("dir", dir); err != nil {
		return dcs.Snapshot{}, err
	}
	ctx, cancel := s.bound(ctx)
	defer cancel()
	c, err := s.read(ctx, dir)
	if err != nil {
		return dcs.Snapshot{}, err
	}
	return dcs.NewSnapshot(c.at, c.entries), nil
}

// content is a directory as of one revision.
type content struct {
	at       time.Time // before it was asked for
	revision int64
	entries  []dcs.Entry
}

func (s *Store) read(ctx context.Context, dir string) (content, error) {
	c := content{at: time.Now()}
	resp, err := s.kv.Get(ctx, dcs.Prefix(dir), clientv3.WithPrefix())
	if err != nil {
		return c, fmt.Errorf("etcd: read %s: %w%s", dir, because(ctx, err), s.connection())
	}
	c.revision = resp.Header.GetRevision()
	c.entries = make([]dcs.Entry, len(resp.Kvs))
	for i, kv := range resp.Kvs {
		c.entries[i] = entry(kv)
	}
	return c, nil
}

// bound gives ctx the store's own deadline if it has none.
func (s *Store) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, cmp.Or(s.Timeout, defaultTimeout))
}

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
	// Timeout bounds a call whose context has no deadline, and of a watch each request; zero: 5 seconds.
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

// Get implements [dcs.Reader]: all entries are as of one moment. A large directory is read in pages.
func (s *Store) Get(ctx context.Context, dir string) (dcs.Snapshot, error) {
	if err := dcs.CheckKey("dir", dir); err != nil {
		return dcs.Snapshot{}, err
	}
	ctx, cancel := s.bound(ctx)
	defer cancel()
	c, err := s.read(ctx, dir, func() {})
	if err != nil {
		return dcs.Snapshot{}, err
	}
	return dcs.NewSnapshot(c.at, c.entries), nil
}

// bound gives ctx the store's own deadline if it has none.
func (s *Store) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, cmp.Or(s.Timeout, defaultTimeout))
}

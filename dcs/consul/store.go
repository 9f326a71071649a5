// Package consul is the Consul back end of package dcs, over the caller's own client.
//
//	client, err := api.NewClient(&api.Config{Address: "127.0.0.1:8500", Token: token})
//	...
//	store := consul.New(client)
//
// The client speaks to the local agent, as always with Consul, or to a server. Its address, TLS, token, datacenter and
// transport stay as they are. A key "/service/demo/leader" is Consul's "service/demo/leader".
//
// # Rights
//
// A watch or Get needs read on all that is below its directory, and writing needs write there; a lease needs sessions
// of the agent's node:
//
//	key_prefix "service/demo/"  { policy = "read" }
//	key_prefix "pgconvoy/"      { policy = "write" }
//	session_prefix ""           { policy = "write" } # for leases; or session "<name of the agent's node>"
//
// Where the agents have acl.enable_key_list_policy, "read" has to be "list". Consul leaves out of an answer what the
// token may not see. That is an error here, never absence; but for requests without any token Consul does not say that
// it left something out: then only a right to the whole directory is recognised. So give every client a token. (Consul
// 1.22 loses the rights of requests without one when such a request meets a leader that has just started.)
//
// # Limits
//
// A watch holds one connection, and a second one for a moment at every confirmation; an agent takes 200 from one address
// (limits.http_max_conns_per_client). An [http.Client] with a Timeout, or a proxy on the way, that allows less than
// Reconfirm for an answer has the watch begin again each time. Idle connections belong to the client's transport.
//
// A value has up to 512 KiB (limits.kv_max_value_size); one that is put through a lease about 372 KiB, since that takes a
// transaction, which is limited with its encoding (limits.txn_max_req_len).
//
// Keys may have any name, but Consul serves no directory that begins with a space, or has a space or two dots written
// with a percent sign ("/a%20b"); such a dir is refused with [dcs.ErrInvalid].
//
// A key's flags are used: they get a random number with every Put, since Consul leaves a key and its version as they
// are when a write changes nothing.
package consul

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/pgconvoy/pgconvoy/dcs"
)

var _ dcs.Store = (*Store)(nil)

// Store is a Consul datacenter as a [dcs.Store]. Make one with [New]. Its fields may be set before the first call and
// must not be changed after.
type Store struct {
	// TTL of leases; zero: 10 seconds, Consul's minimum. At most 24 hours. Consul gives the keys of a holder that has died
	// away after one to two TTLs.
	TTL time.Duration
	// Reconfirm is the interval at which a watch confirms its content by a consistent read, changed or not, and the
	// longest that it trusts in a connection that keeps silent; zero: 10 seconds. More than a minute counts as one.
	Reconfirm time.Duration
	// Timeout bounds a call whose context has no deadline; zero: 10 seconds, since an agent waits up to 7 for a leader before
	// it says that there is none.
	Timeout time.Duration
	// Namespace and Partition are for Consul Enterprise: repeat here what the client's configuration says, since
	// transactions do not take it from there. Empty: the default ones.
	Namespace, Partition string

	client *api.Client
}

const (
	defaultTTL       = 10 * time.Second
	defaultReconfirm = 10 * time.Second
	maxReconfirm     = time.Minute
	defaultTimeout   = 10 * time.Second
)

// New returns a store over client, which stays the caller's.
func New(client *api.Client) *Store { return &Store{client: client} }

// Get implements [dcs.Reader] with one consistent read.
func (s *Store) Get(ctx context.Context, dir string) (dcs.Snapshot, error) {
	if err := checkDir(dir); err != nil {
		return dcs.Snapshot{}, err
	}
	if err := context.Cause(ctx); err != nil {
		return dcs.Snapshot{}, fmt.Errorf("consul: read %s: %w", dir, err)
	}
	ctx, cancel := s.bound(ctx)
	defer cancel()
	c, err := s.read(ctx, dir)
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
	return context.WithTimeout(ctx, s.timeout())
}

func (s *Store) timeout() time.Duration { return cmp.Or(s.Timeout, defaultTimeout) }

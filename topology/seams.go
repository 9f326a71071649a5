package topology

import (
	"context"
	"iter"
	"net/netip"

	"github.com/pgconvoy/pgconvoy/envoyconf"
	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/pooler"
)

// LeaderSource tells who leads the cluster and what is proven of it; [patroni.Source] is the one for Patroni.
//
// Watch yields levels: the last known state, again and again, with Stale when it cannot be confirmed. Each range
// proves anew, so that a caller in doubt ranges again. A non-nil error is the last pair. What an agent acts on: a
// Writable leadership has Addr, Epoch and, as At, when its proof began; a primary that is lost is seen by its Proof.
type LeaderSource interface {
	Watch(ctx context.Context) iter.Seq2[patroni.Leadership, error]
}

// Pooler is one connection pooler; [pooler.Local] is the one for PgBouncer. It is used by one goroutine at a time,
// except that Route and State may be called while a Hold waits.
type Pooler interface {
	// State reads what the pooler is doing now.
	State(ctx context.Context) (pooler.State, error)
	// Hold lets running transactions finish and keeps new ones waiting. It blocks until nothing runs any more; when
	// ctx ends before, the pooler stays held.
	Hold(ctx context.Context) error
	// Route sends the pooler to a proven target and lets clients go: when it returns nil the pooler serves the target,
	// no server connection to another address is left, and it is not held. It is idempotent.
	Route(ctx context.Context, to pooler.Target) error
}

// Router hands a service's endpoints to the load balancers; xds.Server is the one for Envoy.
type Router interface {
	// Set replaces the endpoints of a service. version is a hash of the content, equal on all control planes.
	Set(ctx context.Context, service string, e []envoyconf.Endpoint) (version string, err error)
	// Wait returns when every connected balancer has applied the version; its error names who has not, and why.
	Wait(ctx context.Context, service, version string) error
}

// EnvoyConfig makes an Envoy's bootstrap file; [envoyconf.L4] is the default.
type EnvoyConfig interface {
	Bootstrap(f envoyconf.Fleet) ([]byte, error)
}

// envoyReporter is the ability of a Router to tell what its balancers have applied. Changed's channel is closed at the
// next change.
type envoyReporter interface {
	Envoys() []envoyconf.EnvoyStatus
	Changed() <-chan struct{}
}

// urgentHolder is the ability of a Pooler to hold at any price, where the primary is lost.
type urgentHolder interface {
	HoldNow(ctx context.Context) error
}

// checkpointer is the ability of a Prober to make a server write its dirty buffers.
type checkpointer interface {
	Checkpoint(ctx context.Context, addr netip.AddrPort) error
}

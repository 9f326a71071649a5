package envoyconf

import (
	"cmp"
	"net/netip"
	"time"
)

// Fleet is one Envoy in front of a fleet of PgBouncers. Admin, Listeners and one of ControlPlanes and Static are
// required, and Node with ControlPlanes; everything else has a default.
type Fleet struct {
	// Node is this Envoy's name for the control plane, and should be its own: proof of application is told by it.
	Node string
	// Cluster is the name of the group of Envoys that this one belongs to. Empty means pgconvoy.
	Cluster string
	// Admin is where the admin interface listens. Whoever reaches it can stop Envoy: a loopback address, as a rule.
	Admin netip.AddrPort
	// Listeners are the entry points, usually write on :5432 and read on :5433.
	Listeners []Listener

	// ControlPlanes serve the endpoints. Envoy is connected to one at a time, and goes to the next when it loses it;
	// without any it keeps the last endpoints. A starting Envoy listens when it has the endpoints of every service,
	// or after 5 s; until then /ready on the admin interface says no. The connection is plain text: see [L4].Adjust
	// for TLS.
	ControlPlanes []netip.AddrPort
	// Static is the other mode, without a control plane: the endpoints of each service, for ever.
	Static map[string][]Endpoint

	// TLS says that the PgBouncers offer TLS (client_tls_sslmode is not disable), all of them. Envoy passes TLS
	// through in any case; the health check must know which answer an SSLRequest gets, S or N. A wrong value takes
	// every endpoint out.
	TLS bool
	// IOUring makes Envoy use io_uring for its sockets: more throughput with many clients on Linux. The kernel must
	// have it; where it is missing or forbidden, Envoy serves with epoll.
	IOUring bool

	// MaxConnections bounds the connections of one service. 0 means 100,000: a bound against running away; the
	// PgBouncers' max_client_conn is the one to tune.
	MaxConnections uint32
	// ConnectTimeout bounds one attempt to connect to a PgBouncer. 0 means 1 s.
	ConnectTimeout time.Duration
	// CheckInterval is the time between two health checks of one PgBouncer. Three failures in a row take it out and
	// cut its connections. 0 means 500 ms.
	CheckInterval time.Duration
}

// Listener is one entry point: a service and where clients reach it. Several may lead to one service.
type Listener struct {
	Service string // letters, digits, "-" and "_"; the name of the EDS resource and of the Envoy cluster
	Listen  netip.AddrPort
}

func (f Fleet) withDefaults() Fleet {
	f.Cluster = cmp.Or(f.Cluster, "pgconvoy")
	f.MaxConnections = cmp.Or(f.MaxConnections, 100_000)
	f.ConnectTimeout = cmp.Or(f.ConnectTimeout, time.Second)
	f.CheckInterval = cmp.Or(f.CheckInterval, 500*time.Millisecond)
	return f
}

// services in the order of their first listener.
func (f Fleet) services() []string {
	var names []string
	seen := map[string]bool{}
	for _, l := range f.Listeners {
		if !seen[l.Service] {
			seen[l.Service] = true
			names = append(names, l.Service)
		}
	}
	return names
}

package envoyconf

import "time"

// EnvoyStatus is what one connected Envoy has, as its control plane knows it. The maps are the caller's own.
type EnvoyStatus struct {
	Node    string    // the node id of its bootstrap; empty until its first request
	Address string    // where its connection comes from: tells two Envoys of one node id apart
	Since   time.Time // when it connected

	// Applied is the version of each service that it acknowledged; empty for one that it asked for and does not have.
	// The keys are the services that it asked for.
	Applied map[string]string
	// Rejected is, for each service whose newest version it refused, Envoy's own reason. It keeps what it had before.
	Rejected map[string]string
}

package envoyconf

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	leastrequestv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// serviceCluster is the cluster of one service: its endpoints by EDS, or fixed.
func (f Fleet) serviceCluster(service string) (*clusterv3.Cluster, error) {
	policy, err := leastConnections()
	if err != nil {
		return nil, err
	}
	c := &clusterv3.Cluster{
		Name:                service,
		ConnectTimeout:      duration(f.ConnectTimeout),
		LoadBalancingPolicy: policy,
		HealthChecks:        []*corev3.HealthCheck{f.healthCheck()},
		CircuitBreakers:     f.circuitBreakers(),
		CommonLbConfig: &clusterv3.Cluster_CommonLbConfig{
			// By default Envoy sends to dead hosts too as soon as half of them are dead.
			HealthyPanicThreshold: &typev3.Percent{Value: 0},
			// By default changes of health are held back for a second.
			UpdateMergeWindow: duration(0),
		},
		UpstreamConnectionOptions: &clusterv3.UpstreamConnectionOptions{TcpKeepalive: keepalive()},
		// The control plane is right: what it removes is gone, though its health check still passes.
		IgnoreHealthOnHostRemoval: true,
		// A PgBouncer is one thread: if it leaves one byte unanswered three times it serves nobody, and whoever hangs
		// on it is better off connecting again. One that drains is not checked (see Draining), so it keeps its clients.
		CloseConnectionsOnHostHealthFailure: true,
	}
	if f.Static != nil {
		c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
		c.LoadAssignment = Assignment(service, f.Static[service])
		return c, nil
	}
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}
	c.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{
		ServiceName: service,
		EdsConfig: &corev3.ConfigSource{
			ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
			ResourceApiVersion:    corev3.ApiVersion_V3,
			// Envoy starts to serve when every service has its endpoints, or after this time: a service that nobody
			// sets must not hold back the other.
			InitialFetchTimeout: duration(5 * time.Second),
		},
	}
	return c, nil
}

// leastConnections counts the connections of each host: that is what a request is for a TCP proxy. It compares two
// hosts drawn at random and not all of them (FULL_SCAN), since a host that just died has the fewest connections: a full
// scan would pick nothing else until the health check fails.
func leastConnections() (*clusterv3.LoadBalancingPolicy, error) {
	x, err := extension("envoy.load_balancing_policies.least_request", &leastrequestv3.LeastRequest{ChoiceCount: number(2)})
	if err != nil {
		return nil, err
	}
	return &clusterv3.LoadBalancingPolicy{
		Policies: []*clusterv3.LoadBalancingPolicy_Policy{{TypedExtensionConfig: x}},
	}, nil
}

// circuitBreakers raises all three limits. A TCP connection counts as a pending request while it connects and as a
// connection and a request afterwards; the default of each is 1,024.
func (f Fleet) circuitBreakers() *clusterv3.CircuitBreakers {
	return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
		MaxConnections:     number(f.MaxConnections),
		MaxPendingRequests: number(f.MaxConnections),
		MaxRequests:        number(f.MaxConnections),
	}}}
}

// healthCheck asks for TLS and takes the one byte that comes back: it proves that PgBouncer's loop turns, without a
// user, and whatever the state of the database.
func (f Fleet) healthCheck() *corev3.HealthCheck {
	answer := "4e" // N
	if f.TLS {
		answer = "53" // S
	}
	text := func(s string) *corev3.HealthCheck_Payload {
		return &corev3.HealthCheck_Payload{Payload: &corev3.HealthCheck_Payload_Text{Text: s}}
	}
	return &corev3.HealthCheck{
		Interval:           duration(f.CheckInterval),
		Timeout:            duration(time.Second),
		UnhealthyThreshold: number(3),
		HealthyThreshold:   number(1),
		// A cluster without traffic is checked once a minute by default; the first client would meet stale health.
		NoTrafficInterval: duration(f.CheckInterval),
		// After its answer PgBouncer waits for a startup packet or a TLS handshake, and then cuts.
		ReuseConnection: wrapperspb.Bool(false),
		HealthChecker: &corev3.HealthCheck_TcpHealthCheck_{TcpHealthCheck: &corev3.HealthCheck_TcpHealthCheck{
			Send:    text("0000000804d2162f"), // SSLRequest: length 8, code 80877103
			Receive: []*corev3.HealthCheck_Payload{text(answer)},
		}},
	}
}

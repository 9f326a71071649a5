package envoyconf

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func proxyListener(l Listener) (*listenerv3.Listener, error) {
	proxy, err := pack(&tcpproxyv3.TcpProxy{
		StatPrefix:       l.Service,
		ClusterSpecifier: &tcpproxyv3.TcpProxy_Cluster{Cluster: l.Service},
		// The default of one hour ends the idle connections of the applications' pools. TCP keepalive finds dead peers.
		IdleTimeout: duration(0),
		// A PgBouncer that just died still looks like the least loaded one, until its health check fails three times.
		// Each attempt draws again; so many of them, spaced like this, outlast the health check (about 1.5 s).
		MaxConnectAttempts: number(20),
		BackoffOptions: &corev3.BackoffStrategy{
			BaseInterval: duration(10 * time.Millisecond),
			MaxInterval:  duration(500 * time.Millisecond),
		},
	})
	if err != nil {
		return nil, err
	}
	return &listenerv3.Listener{
		Name:    l.Service + "_" + l.Listen.String(),
		Address: address(l.Listen),
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{
			Name:       "envoy.filters.network.tcp_proxy",
			ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: proxy},
		}}}},
		// One socket for each worker: the kernel spreads connections, and a new Envoy can start beside an old one.
		EnableReusePort: wrapperspb.Bool(true),
		// Clients come back all at once after a failover. The kernel cuts this to net.core.somaxconn.
		TcpBacklogSize: number(4096),
		TcpKeepalive:   keepalive(),
	}, nil
}

// keepalive finds a peer that vanished without a word in about 20 s.
func keepalive() *corev3.TcpKeepalive {
	return &corev3.TcpKeepalive{KeepaliveTime: number(10), KeepaliveInterval: number(3), KeepaliveProbes: number(3)}
}

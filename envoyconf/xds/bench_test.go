package xds_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/delta/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"
	"google.golang.org/grpc"

	"github.com/pgconvoy/pgconvoy/envoyconf"
	"github.com/pgconvoy/pgconvoy/envoyconf/xds"
)

// The time from Set to the last acknowledgement, beside go-control-plane's LinearCache doing the same job without the
// laws (it has no proof of application; its callbacks count here).
func BenchmarkSetToLastAck(b *testing.B) {
	for _, k := range kinds {
		for _, n := range []int{1, 100} {
			b.Run(fmt.Sprintf("%s/streams=%d/Server", k.name, n), func(b *testing.B) { benchServer(b, k, n) })
			b.Run(fmt.Sprintf("%s/streams=%d/LinearCache", k.name, n), func(b *testing.B) { benchLinear(b, k, n) })
		}
	}
}

// content is another one for each i.
func content(i int) []envoyconf.Endpoint {
	e := endpoints("10.0.0.1:6432", "10.0.0.2:6432", "10.0.0.3:6432")
	e[0].Addr = netip.AddrPortFrom(e[0].Addr.Addr(), uint16((i+1)%60_000+1))
	return e
}

// acknowledging connects n clients that accept everything, until stop.
func acknowledging(b *testing.B, k clientKind, n int, to netip.AddrPort) (stop func()) {
	var answering sync.WaitGroup
	var clients []client
	for i := range n {
		c := k.dial(b, to, fmt.Sprintf("envoy-%d", i))
		c.subscribe(nil, "write")
		clients = append(clients, c)
		answering.Go(func() {
			for m := range c.messages() {
				c.ack(m)
			}
		})
	}
	return func() {
		for _, c := range clients {
			c.close()
		}
		answering.Wait()
	}
}

func benchServer(b *testing.B, k clientKind, n int) {
	s := xds.New(xds.Config{})
	addr, _ := serve(b, s, "127.0.0.1:0")
	stop := acknowledging(b, k, n, addr)
	defer stop()
	await(b, s, "all", func(e []envoyconf.EnvoyStatus) bool { return len(e) == n })
	wait(b, s, "write", set(b, s, "write", content(-1)))
	i := 0
	for b.Loop() {
		wait(b, s, "write", set(b, s, "write", content(i)))
		i++
	}
}

func benchLinear(b *testing.B, k clientKind, n int) {
	acks := make(chan struct{}, 10*n)
	linear := cache.NewLinearCache(endpointType)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	g := grpc.NewServer(xds.ServerOptions()...)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, linearADS{ctx: ctx, cache: linear, acks: acks})
	var serving sync.WaitGroup
	serving.Go(func() { _ = g.Serve(l) })
	defer func() {
		cancel()
		g.Stop()
		serving.Wait()
	}()
	push := func(i int) {
		if err := linear.UpdateResource("write", envoyconf.Assignment("write", content(i))); err != nil {
			b.Fatal(err)
		}
		for range n {
			<-acks
		}
	}
	stop := acknowledging(b, k, n, l.Addr().(*net.TCPAddr).AddrPort())
	defer stop()
	push(-1)
	i := 0
	for b.Loop() {
		push(i)
		i++
	}
}

// linearADS serves a cache and reports acknowledgements.
type linearADS struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	ctx   context.Context
	cache cache.ConfigWatcher
	acks  chan struct{}
}

func (a linearADS) StreamAggregatedResources(g discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	return sotw.NewServer(a.ctx, a.cache, a).StreamHandler(g, "")
}

func (a linearADS) DeltaAggregatedResources(g discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return delta.NewServer(a.ctx, a.cache, a).DeltaStreamHandler(g, "")
}

func (a linearADS) OnStreamRequest(_ int64, r *discoveryv3.DiscoveryRequest) error {
	if r.GetResponseNonce() != "" {
		a.acks <- struct{}{}
	}
	return nil
}

func (a linearADS) OnStreamDeltaRequest(_ int64, r *discoveryv3.DeltaDiscoveryRequest) error {
	if r.GetResponseNonce() != "" {
		a.acks <- struct{}{}
	}
	return nil
}

func (linearADS) OnStreamOpen(context.Context, int64, string) error      { return nil }
func (linearADS) OnStreamClosed(int64, *corev3.Node)                     {}
func (linearADS) OnDeltaStreamOpen(context.Context, int64, string) error { return nil }
func (linearADS) OnDeltaStreamClosed(int64, *corev3.Node)                {}

func (linearADS) OnStreamResponse(context.Context, int64, *discoveryv3.DiscoveryRequest, *discoveryv3.DiscoveryResponse) {
}

func (linearADS) OnStreamDeltaResponse(int64, *discoveryv3.DeltaDiscoveryRequest, *discoveryv3.DeltaDiscoveryResponse) {
}

package xds_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/pgconvoy/pgconvoy/envoyconf"
	"github.com/pgconvoy/pgconvoy/envoyconf/xds"
)

const endpointType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"

func endpoints(addrs ...string) []envoyconf.Endpoint {
	var e []envoyconf.Endpoint
	for _, a := range addrs {
		e = append(e, envoyconf.Endpoint{Addr: netip.MustParseAddrPort(a)})
	}
	return e
}

// set publishes and fails the test on an error.
func set(t testing.TB, s *xds.Server, service string, e []envoyconf.Endpoint) string {
	t.Helper()
	v, err := s.Set(t.Context(), service, e)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func wait(t testing.TB, s *xds.Server, service, version string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.Wait(ctx, service, version); err != nil {
		t.Fatal(err)
	}
}

// await waits for a state of the connected Envoys, without polling.
func await(t testing.TB, s *xds.Server, what string, ok func([]envoyconf.EnvoyStatus) bool) {
	t.Helper()
	timeout := time.After(time.Minute)
	for {
		changed := s.Changed()
		envoys := s.Envoys()
		if ok(envoys) {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("waited for %s, have %+v", what, envoys)
		}
	}
}

func connected(n int) func([]envoyconf.EnvoyStatus) bool {
	return func(e []envoyconf.EnvoyStatus) bool { return len(e) == n }
}

// logger writes to the test's output, and drops what comes after its end.
func logger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// serve runs s on a loopback address until stop is called or the test ends.
func serve(t testing.TB, s *xds.Server, at string) (addr netip.AddrPort, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(xds.ServerOptions()...)
	s.Register(g)
	done := make(chan error, 1)
	go func() { done <- g.Serve(l) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		g.Stop()
		if err := <-done; err != nil {
			t.Errorf("gRPC server: %v", err)
		}
	}
	t.Cleanup(stop)
	return l.Addr().(*net.TCPAddr).AddrPort(), stop
}

// message is a response of either variant.
type message struct {
	nonce, info string
	resources   map[string]int // endpoints of each service
}

// client speaks one variant of the protocol. It sends what it is told to and nothing by itself.
type client interface {
	subscribe(has map[string]string, services ...string)
	add(services ...string)
	ack(m message)
	nack(m message, reason string)
	messages() <-chan message
	close()
}

type clientKind struct {
	name string
	dial func(t testing.TB, to netip.AddrPort, node string) client
}

var kinds = []clientKind{{"sotw", dialSotw}, {"delta", dialDelta}}

// each runs a test for both variants.
func each(t *testing.T, f func(t *testing.T, k clientKind)) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) { f(t, k) })
	}
}

func dialADS(t testing.TB, to netip.AddrPort) (*grpc.ClientConn, discoveryv3.AggregatedDiscoveryServiceClient) {
	t.Helper()
	c, err := grpc.NewClient(to.String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	return c, discoveryv3.NewAggregatedDiscoveryServiceClient(c)
}

type sotwClient struct {
	t        testing.TB
	conn     *grpc.ClientConn
	stream   discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient
	node     *corev3.Node
	services []string
	accepted string
	nonce    string
	in       chan message
	done     chan struct{}
}

func dialSotw(t testing.TB, to netip.AddrPort, node string) client {
	t.Helper()
	conn, ads := dialADS(t, to)
	stream, err := ads.StreamAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := &sotwClient{t: t, conn: conn, stream: stream, node: &corev3.Node{Id: node}, in: make(chan message, 10_000), done: make(chan struct{})}
	go func() {
		defer close(c.done)
		defer close(c.in)
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			m := message{nonce: r.GetNonce(), info: r.GetVersionInfo(), resources: map[string]int{}}
			for _, a := range r.GetResources() {
				m.add(a.GetValue())
			}
			c.in <- m
		}
	}()
	t.Cleanup(c.close)
	return c
}

func (m message) add(resource []byte) {
	var a endpointv3.ClusterLoadAssignment
	if err := proto.Unmarshal(resource, &a); err != nil {
		panic(err)
	}
	n := 0
	for _, l := range a.GetEndpoints() {
		n += len(l.GetLbEndpoints())
	}
	m.resources[a.GetClusterName()] = n
}

func (c *sotwClient) send(refusal *status.Status) {
	c.t.Helper()
	err := c.stream.Send(&discoveryv3.DiscoveryRequest{
		Node: c.node, TypeUrl: endpointType, ResourceNames: c.services,
		VersionInfo: c.accepted, ResponseNonce: c.nonce, ErrorDetail: refusal,
	})
	if err != nil {
		c.t.Error(err)
	}
	c.node = nil // only in the first request
}

func (c *sotwClient) subscribe(has map[string]string, services ...string) {
	for s, v := range has {
		c.accepted += fmt.Sprintf(",%s=%s", s, v)
	}
	c.services = services
	c.send(nil)
}

func (c *sotwClient) add(services ...string) {
	c.services = append(c.services, services...)
	c.send(nil)
}

func (c *sotwClient) ack(m message) {
	c.accepted, c.nonce = m.info, m.nonce
	c.send(nil)
}

func (c *sotwClient) nack(m message, reason string) {
	c.nonce = m.nonce
	c.send(&status.Status{Message: reason})
}

func (c *sotwClient) messages() <-chan message { return c.in }

func (c *sotwClient) close() {
	c.conn.Close()
	<-c.done
}

type deltaClient struct {
	t      testing.TB
	conn   *grpc.ClientConn
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	node   *corev3.Node
	in     chan message
	done   chan struct{}
}

func dialDelta(t testing.TB, to netip.AddrPort, node string) client {
	t.Helper()
	conn, ads := dialADS(t, to)
	stream, err := ads.DeltaAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := &deltaClient{t: t, conn: conn, stream: stream, node: &corev3.Node{Id: node}, in: make(chan message, 10_000), done: make(chan struct{})}
	go func() {
		defer close(c.done)
		defer close(c.in)
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			m := message{nonce: r.GetNonce(), info: r.GetSystemVersionInfo(), resources: map[string]int{}}
			for _, x := range r.GetResources() {
				m.add(x.GetResource().GetValue())
			}
			c.in <- m
		}
	}()
	t.Cleanup(c.close)
	return c
}

func (c *deltaClient) send(r *discoveryv3.DeltaDiscoveryRequest) {
	c.t.Helper()
	r.Node, r.TypeUrl = c.node, endpointType
	if err := c.stream.Send(r); err != nil {
		c.t.Error(err)
	}
	c.node = nil
}

func (c *deltaClient) subscribe(has map[string]string, services ...string) {
	c.send(&discoveryv3.DeltaDiscoveryRequest{ResourceNamesSubscribe: services, InitialResourceVersions: has})
}

func (c *deltaClient) add(services ...string) {
	c.send(&discoveryv3.DeltaDiscoveryRequest{ResourceNamesSubscribe: services})
}

func (c *deltaClient) ack(m message) {
	c.send(&discoveryv3.DeltaDiscoveryRequest{ResponseNonce: m.nonce})
}

func (c *deltaClient) nack(m message, reason string) {
	c.send(&discoveryv3.DeltaDiscoveryRequest{ResponseNonce: m.nonce, ErrorDetail: &status.Status{Message: reason}})
}

func (c *deltaClient) messages() <-chan message { return c.in }

func (c *deltaClient) close() {
	c.conn.Close()
	<-c.done
}

// next returns the next response.
func next(t testing.TB, c client) message {
	t.Helper()
	select {
	case m, ok := <-c.messages():
		if !ok {
			t.Fatal("the stream ended")
		}
		return m
	case <-time.After(30 * time.Second):
		t.Fatal("no response")
	}
	return message{}
}

// quiet fails the test if a response comes within a moment that a tight loop would fill with thousands.
func quiet(t testing.TB, c client) {
	t.Helper()
	select {
	case m := <-c.messages():
		t.Fatalf("unexpected response %+v", m)
	case <-time.After(200 * time.Millisecond):
	}
}

// sendType asks for everything of a type that is not served.
func (c *deltaClient) sendType(typeURL string) {
	c.t.Helper()
	if err := c.stream.Send(&discoveryv3.DeltaDiscoveryRequest{Node: c.node, TypeUrl: typeURL}); err != nil {
		c.t.Error(err)
	}
}

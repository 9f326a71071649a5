package xds

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/pgconvoy/pgconvoy/envoyconf"
)

// Config of a Server. The zero value is ready to use.
type Config struct {
	Logger *slog.Logger // nil: silent
}

// Server holds the newest endpoints of each service and the state of each connected Envoy. Make it with [New]; its
// methods may be called at any time by any number of goroutines. It starts nothing: all that runs are the handlers of
// the gRPC server that it is registered with.
type Server struct {
	log *slog.Logger

	mu       sync.Mutex
	services map[string]published
	streams  map[*stream]struct{}
	changed  chan struct{} // closed at the next change, made when somebody asks
}

// published is the newest content of one service. It is shared by all streams and never written again.
type published struct {
	version  string
	resource *anypb.Any
}

// New returns a server that knows no service yet.
func New(c Config) *Server {
	s := &Server{log: c.Logger, services: map[string]published{}, streams: map[*stream]struct{}{}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s
}

// Register makes the server answer ADS on g. Envoys hold their streams open, so g.GracefulStop would wait for them for
// ever: end g with g.Stop, which ends everything that the streams run.
func (s *Server) Register(g grpc.ServiceRegistrar) {
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, ads{server: s})
}

// ServerOptions are those that a gRPC server for Envoys should have. They allow the pings of envoyconf's bootstrap
// (gRPC's default is to cut whoever pings more than once in five minutes), find an Envoy that vanished without a word
// within 7 s, and wait for the handlers when the server stops.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 5 * time.Second, Timeout: 2 * time.Second}),
		grpc.WaitForHandlers(true),
	}
}

// Set publishes the endpoints of a service and returns their version, [envoyconf.Version]. It does not wait for any
// Envoy; see [Server.Wait]. The same content again is not pushed again. A later Set wins. Endpoints that
// [envoyconf.Validate] refuses change nothing.
func (s *Server) Set(ctx context.Context, service string, endpoints []envoyconf.Endpoint) (version string, err error) {
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("xds: set %s: %w", service, err)
	}
	if err := envoyconf.Validate(service, endpoints); err != nil {
		return "", err
	}
	p := published{version: envoyconf.Version(endpoints), resource: &anypb.Any{}}
	err = anypb.MarshalFrom(p.resource, envoyconf.Assignment(service, endpoints), proto.MarshalOptions{Deterministic: true})
	if err != nil {
		return "", fmt.Errorf("xds: set %s: %w", service, err)
	}

	if s.publish(service, p) {
		s.log.InfoContext(ctx, "endpoints set", "service", service, "version", p.version, "endpoints", len(endpoints))
	}
	return p.version, nil
}

// publish reports whether p is new.
func (s *Server) publish(service string, p published) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.services[service].version == p.version {
		return false
	}
	s.services[service] = p
	for st := range s.streams {
		st.flush()
	}
	s.notify()
	return true
}

// ads is the gRPC service. It is not the Server itself, whose methods are for its owner.
type ads struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	server *Server
}

func (a ads) StreamAggregatedResources(g discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	return a.server.open(g.Context()).serve(g)
}

func (a ads) DeltaAggregatedResources(g discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return a.server.open(g.Context()).serveDelta(g)
}

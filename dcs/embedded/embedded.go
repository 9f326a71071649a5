// Package embedded runs a one-node etcd in this process: a real store, over TCP, that Patroni and any etcd client can
// use. It is the default of a local stack, and what tests of the etcd back end run against.
//
// Importing this package brings in the etcd server, whose dependencies register the handlers of net/http/pprof on
// http.DefaultServeMux. Programs that serve that mux to others should not import it; package dcs/etcd does not.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"sync"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/pgconvoy/pgconvoy/dcs/etcd"
)

// Config says how to run the server. The zero value is a throwaway server on a free loopback port.
type Config struct {
	// Dir keeps the data between runs, and is created if absent. Empty: a temporary directory that Close removes;
	// nothing in it is worth an fsync, so none is done.
	Dir string
	// Listen is the address for clients. Zero: a free port of 127.0.0.1. Port zero: a free port of that address.
	// There is neither TLS nor authentication: bind it to loopback.
	Listen netip.AddrPort
	// Log is a file that the server's log is appended to, from level info. Empty: silence.
	Log string
	// NoSync leaves out every fsync also where Dir is given: much faster on a slow disk. The data survives the death
	// of this process, but not of the machine.
	NoSync bool
}

// Server is a running server. Its methods may be called at any time from any goroutine.
type Server struct {
	endpoint string
	client   *clientv3.Client
	store    *etcd.Store
	etcd     *embed.Etcd
	streams  *streams
	tempDir  string // removed by Close; empty: the directory is the caller's
	log      *zap.Logger
	closing  sync.Once
	closeErr error
}

const (
	// One node needs no patience with others: it elects itself within twice the election timeout. That also bounds
	// the shortest lease from below, here to one second.
	heartbeat = 20 * time.Millisecond
	election  = 100 * time.Millisecond
	// The store's whole past would be kept without a compaction. Watches re-read when they need more than this.
	retention = "10m"
	// A port that was free when it was looked up may be taken by the time that it is bound.
	portAttempts = 20
)

// Start runs a server and returns when it answers. ctx bounds the start alone. Close must be called.
func Start(ctx context.Context, c Config) (*Server, error) {
	s := &Server{streams: newStreams()}
	ok := false
	defer func() {
		if !ok {
			_ = s.Close()
		}
	}()
	var err error
	if s.log, err = newLogger(c.Log); err != nil {
		return nil, fmt.Errorf("embedded etcd: log: %w", err)
	}
	dir := c.Dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "pgconvoy-etcd-"); err != nil {
			return nil, fmt.Errorf("embedded etcd: %w", err)
		}
		s.tempDir = dir
	}
	if err := s.listen(c, dir); err != nil {
		return nil, fmt.Errorf("embedded etcd: start in %s: %w", dir, err)
	}
	s.client, err = clientv3.New(clientv3.Config{
		Endpoints: []string{s.endpoint},
		Logger:    zap.NewNop(),
	})
	if err != nil {
		return nil, fmt.Errorf("embedded etcd: client: %w", err)
	}
	s.store = etcd.New(s.client)
	select {
	case <-s.etcd.Server.ReadyNotify():
	case err := <-s.etcd.Err():
		return nil, fmt.Errorf("embedded etcd: start in %s: %w", dir, err)
	case <-ctx.Done():
		return nil, fmt.Errorf("embedded etcd: start in %s: %w", dir, context.Cause(ctx))
	}
	if _, err := s.client.Get(ctx, "/", clientv3.WithCountOnly()); err != nil {
		return nil, fmt.Errorf("embedded etcd: first read: %w", err)
	}
	ok = true
	return s, nil
}

// listen starts the server, on another port if the one that was found free is not free any more.
func (s *Server) listen(c Config, dir string) error {
	for attempt := 1; ; attempt++ {
		addr, err := address(c.Listen)
		if err != nil {
			return err
		}
		s.etcd, err = embed.StartEtcd(s.config(c, dir, addr))
		if err == nil {
			s.endpoint = "http://" + addr.String()
			return nil
		}
		s.etcd = nil
		// The ports are bound before anything is written, so a second attempt finds the directory untouched.
		if c.Listen.Port() != 0 || !errors.Is(err, syscall.EADDRINUSE) || attempt == portAttempts {
			return err
		}
	}
}

// address returns want with a port that is free now.
func address(want netip.AddrPort) (netip.AddrPort, error) {
	if !want.Addr().IsValid() {
		want = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), want.Port())
	}
	if want.Port() != 0 {
		return want, nil
	}
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(want))
	if err != nil {
		return netip.AddrPort{}, err
	}
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	return netip.AddrPortFrom(want.Addr(), port), l.Close()
}

func (s *Server) config(c Config, dir string, addr netip.AddrPort) *embed.Config {
	// Peers are named in the member list and never dialled: there is one node, and it listens for none.
	peer := url.URL{Scheme: "http", Host: "127.0.0.1:2380"}
	client := url.URL{Scheme: "http", Host: addr.String()}

	e := embed.NewConfig()
	e.Name = "pgconvoy"
	e.Dir = dir
	e.ListenPeerUrls = nil
	e.AdvertisePeerUrls = []url.URL{peer}
	e.InitialCluster = e.Name + "=" + peer.String()
	e.ListenClientUrls = []url.URL{client}
	e.AdvertiseClientUrls = []url.URL{client}
	e.TickMs = uint(heartbeat.Milliseconds())
	e.ElectionMs = uint(election.Milliseconds())
	e.AutoCompactionMode = embed.CompactorModePeriodic
	e.AutoCompactionRetention = retention
	e.UnsafeNoFsync = c.NoSync || c.Dir == ""
	e.ZapLoggerBuilder = embed.NewZapLoggerBuilder(s.log)
	e.GRPCAdditionalServerOptions = []grpc.ServerOption{grpc.ChainStreamInterceptor(s.streams.intercept)}
	return e
}

// Endpoint is the server's address for any client, gRPC or JSON over HTTP: "http://127.0.0.1:port".
func (s *Server) Endpoint() string { return s.endpoint }

// Client is connected to the server. It is closed by Close.
func (s *Server) Client() *clientv3.Client { return s.client }

// Store is the server as a store, over Client. Set its fields before its first use.
func (s *Server) Store() *etcd.Store { return s.store }

// Close ends every client's stream, stops the server and returns when nothing of it is left. A later call returns
// the same error.
func (s *Server) Close() error {
	s.closing.Do(func() {
		var errs []error
		if s.client != nil {
			errs = append(errs, s.client.Close())
		}
		s.streams.end()
		if s.etcd != nil {
			s.etcd.Close()
		}
		if s.log != nil {
			_ = s.log.Sync() // a file that cannot be synced is no reason to fail
		}
		if s.tempDir != "" {
			errs = append(errs, os.RemoveAll(s.tempDir))
		}
		s.closeErr = errors.Join(errs...)
	})
	return s.closeErr
}

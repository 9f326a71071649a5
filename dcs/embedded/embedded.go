// Package embedded runs an etcd in this process: a real store, over TCP, that Patroni and any etcd client can use. It is
// the default of a local stack, and what tests of the etcd back end run against. It is one node, or with Config.Peers one
// member of a cluster whose others run in this process or elsewhere.
//
// Importing this package brings in the etcd server, whose dependencies register the handlers of net/http/pprof on
// http.DefaultServeMux. Programs that serve that mux to others should not import it; package dcs/etcd does not.
package embedded

import (
	"cmp"
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

// Config says how to run the server. The zero value is a throwaway server of one node on a free loopback port.
type Config struct {
	// Name is the member's. Empty: "pgconvoy".
	Name string
	// Peers are the addresses at which the members of a static cluster hear each other, by member's name, this one's
	// included; its port must be free. All members are given the same Peers, also when they start again. Empty: one
	// node, that listens for nobody.
	Peers map[string]netip.AddrPort
	// Dir keeps the data between runs, and is created if absent. Empty: a temporary directory that Close removes;
	// nothing in it is worth an fsync, so none is done. A member of a cluster that has once served is not let in again
	// without its data.
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
	calls    *calls
	peers    *peers // nil: one node
	tempDir  string // removed by Close; empty: the directory is the caller's
	log      *zap.Logger
	closing  sync.Once
	closeErr error
}

const (
	// The store's whole past would be kept without a compaction. Watches re-read when they need more than this.
	retention = "10m"
	// A port that was free when it was looked up may be taken by the time that it is bound.
	portAttempts = 20
)

// Start runs a server and returns when it answers: a member of a cluster does when a majority of the members runs, so
// start them at the same time. ctx bounds the start alone. Close must be called.
func Start(ctx context.Context, c Config) (*Server, error) {
	c.Name = cmp.Or(c.Name, "pgconvoy")
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("embedded etcd: %w", err)
	}
	s := &Server{calls: newCalls()}
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
	if len(c.Peers) > 0 {
		if s.peers, err = listenForPeers(c.Peers[c.Name]); err != nil {
			return nil, fmt.Errorf("embedded etcd: Peers: the address of %s: %w", c.Name, err)
		}
	}
	if err := s.listen(c, dir); err != nil {
		return nil, fmt.Errorf("embedded etcd: start in %s: %w", dir, err)
	}
	if s.peers != nil {
		s.peers.join(s.etcd)
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
		return nil, fmt.Errorf("embedded etcd: start in %s: %w%s", dir, context.Cause(ctx), c.alone())
	}
	if _, err := s.client.Get(ctx, "/", clientv3.WithCountOnly()); err != nil {
		return nil, fmt.Errorf("embedded etcd: first read: %w%s", err, c.alone())
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
	e := embed.NewConfig()
	e.Dir = dir
	c.members(e)
	client := url.URL{Scheme: "http", Host: addr.String()}
	e.ListenClientUrls = []url.URL{client}
	e.AdvertiseClientUrls = []url.URL{client}
	e.AutoCompactionMode = embed.CompactorModePeriodic
	e.AutoCompactionRetention = retention
	e.UnsafeNoFsync = c.NoSync || c.Dir == ""
	e.ZapLoggerBuilder = embed.NewZapLoggerBuilder(s.log)
	e.GRPCAdditionalServerOptions = []grpc.ServerOption{
		grpc.ChainStreamInterceptor(s.calls.stream), grpc.ChainUnaryInterceptor(s.calls.unary),
	}
	return e
}

// Endpoint is the server's address for any client, gRPC or JSON over HTTP: "http://127.0.0.1:port".
func (s *Server) Endpoint() string { return s.endpoint }

// Client is connected to this server alone. It is closed by Close.
func (s *Server) Client() *clientv3.Client { return s.client }

// Store is this server as a store, over Client: one that a cluster is cut off from does not answer. Set its fields
// before its first use.
func (s *Server) Store() *etcd.Store { return s.store }

// Close ends every client's calls, stops the server and returns when nothing of it is left. A later call returns the
// same error.
func (s *Server) Close() error {
	s.closing.Do(func() {
		defer s.calls.end() // of a server that did not start
		var errs []error
		if s.client != nil {
			errs = append(errs, s.client.Close())
		}
		if s.etcd != nil {
			handed := s.handOver()
			select {
			case <-s.calls.end():
				// Close would give the leadership away once more, also one that came meanwhile from a member that has
				// gone since, and wait for its heir.
				s.etcd.Server.HardStop()
			case <-time.After(time.Second):
			}
			s.etcd.Close()
			<-handed
		}
		if s.peers != nil {
			errs = append(errs, s.peers.close())
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

// handOver makes the server ready for etcd's Close, which alone could take long. handed is closed by then.
func (s *Server) handOver() (handed <-chan struct{}) {
	e := s.etcd.Server
	done := make(chan struct{})
	select {
	case <-e.ReadyNotify():
	default:
		e.HardStop() // Close waits for either, and without a majority a member does not get ready
		close(done)
		return done
	}
	// A courtesy, for as long as the cluster itself waits for the heir, which may have gone at the same time; and a leader
	// that has lost its majority is none any more, which may come sooner.
	go func() {
		defer close(done)
		_ = e.TryTransferLeadershipOnShutdown()
	}()
	late := time.After(e.Cfg.ElectionTimeout())
	for e.Lead() == uint64(e.MemberID()) {
		select {
		case <-done:
			return done
		case <-late:
			return done
		case <-time.After(time.Millisecond):
		}
	}
	return done
}

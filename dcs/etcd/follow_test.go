package etcd_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/pgconvoy/pgconvoy/dcs/embedded"
	"github.com/pgconvoy/pgconvoy/dcs/etcd"
	"github.com/pgconvoy/pgconvoy/internal/storetest"
)

const dir = storetest.Dir

// start runs a server for the rest of the test.
func start(t testing.TB, c embedded.Config) *embedded.Server {
	t.Helper()
	s, err := embedded.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func address(s *embedded.Server) netip.AddrPort {
	return netip.MustParseAddrPort(strings.TrimPrefix(s.Endpoint(), "http://"))
}

// path is a client's way to a server, which can be broken.
func path(t testing.TB, s *embedded.Server) storetest.Paths {
	t.Helper()
	return storetest.Paths{storetest.NewProxy(t, address(s))}
}

// connect returns a store over a client of its own.
func connect(t testing.TB, addrs []netip.AddrPort, change ...func(*clientv3.Config)) *etcd.Store {
	t.Helper()
	s := etcd.New(client(t, addrs, change...))
	s.Reconfirm = time.Hour // what the tests wait for comes without it
	return s
}

func client(t testing.TB, addrs []netip.AddrPort, change ...func(*clientv3.Config)) *clientv3.Client {
	t.Helper()
	c := clientv3.Config{Logger: zap.NewNop()}
	for _, addr := range addrs {
		c.Endpoints = append(c.Endpoints, "http://"+addr.String())
	}
	for _, f := range change {
		f(&c)
	}
	client, err := clientv3.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

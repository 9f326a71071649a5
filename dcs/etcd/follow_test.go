package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/embedded"
	"github.com/pgconvoy/pgconvoy/dcs/etcd"
	"github.com/pgconvoy/pgconvoy/internal/storetest"
)

const dir = "/demo"

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

// follower runs a watch and remembers its elements.
type follower struct {
	t    testing.TB
	c    <-chan dcs.Snapshot
	last dcs.Snapshot
}

func follow(t testing.TB, s dcs.Reader) *follower {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c, wait := dcs.Latest(s.Watch(ctx, dir))
	t.Cleanup(func() {
		cancel()
		if err := wait(); !errors.Is(err, context.Canceled) {
			t.Errorf("watch ended with %v", err)
		}
	})
	return &follower{t: t, c: c}
}

// until waits for an element, for much longer than a busy machine needs.
func (f *follower) until(what string, ok func(dcs.Snapshot) bool) {
	f.t.Helper()
	const within = 30 * time.Second
	begin, timeout := time.Now(), time.After(within)
	for {
		select {
		case s, open := <-f.c:
			if !open {
				f.t.Fatalf("watch ended while waiting until it is %s", what)
			}
			if s.At.Before(f.last.At) {
				f.t.Errorf("At went back from %v to %v", f.last.At, s.At)
			}
			if f.last = s; ok(s) {
				f.t.Logf("%s after %v", what, time.Since(begin).Round(10*time.Microsecond))
				return
			}
		case <-timeout:
			f.t.Fatalf("not %s within %v; it is %v, known %v, stale: %v", what, within, content(f.last), f.last.Known(), f.last.Stale)
		}
	}
}

func stale(s dcs.Snapshot) bool { return s.Stale != nil }

func fresh(want string) func(dcs.Snapshot) bool {
	return func(s dcs.Snapshot) bool { return s.Known() && s.Stale == nil && content(s) == want }
}

func content(s dcs.Snapshot) string {
	var b strings.Builder
	for e := range s.All(dir) {
		fmt.Fprintf(&b, "%s=%s ", e.Key[len(dir)+1:], e.Value)
	}
	return strings.TrimSpace(b.String())
}

func put(t testing.TB, s dcs.Writer, name, value string, prev dcs.Version) dcs.Version {
	t.Helper()
	v, err := s.Put(t.Context(), dir+"/"+name, []byte(value), prev)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

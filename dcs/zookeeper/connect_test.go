package zookeeper_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/zookeeper"
	"github.com/pgconvoy/pgconvoy/internal/storetest"
)

const (
	dir    = storetest.Dir
	ttl    = 4 * time.Second
	within = storetest.Patience
)

// silent is a log that nobody reads: the client writes one line for each attempt to connect.
type silent struct{}

func (silent) Printf(string, ...any) {}

// dial opens a connection with sessions of that timeout, until the test ends.
func dial(t testing.TB, timeout time.Duration, addrs ...netip.AddrPort) *zk.Conn {
	t.Helper()
	servers := make([]string, len(addrs))
	for i, addr := range addrs {
		servers[i] = addr.String()
	}
	conn, events, err := zk.Connect(servers, timeout, zk.WithLogInfo(false), zk.WithLogger(silent{}),
		zk.WithDialer(zookeeper.Dialer(timeout, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		for range events { // closed when the client's goroutines have ended
		}
	})
	return conn
}

// connect returns a store over a connection of its own.
func connect(t testing.TB, addrs ...netip.AddrPort) *zookeeper.Store {
	t.Helper()
	return store(dial(t, ttl, addrs...))
}

func store(conn *zk.Conn) *zookeeper.Store {
	s := zookeeper.New(conn)
	s.TTL = ttl
	s.Reconfirm = time.Hour // what the tests wait for comes without it
	return s
}

// await waits until something is so.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for begin := time.Now(); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Since(begin) > within {
			t.Fatalf("not within %v: %s", within, what)
		}
	}
}

func awaitSession(t testing.TB, conn *zk.Conn) {
	t.Helper()
	await(t, "a session", func() bool { return conn.State() == zk.StateHasSession })
}

func get(t testing.TB, s dcs.Reader) dcs.Snapshot {
	t.Helper()
	snap, err := s.Get(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return snap
}

func wantError(t testing.TB, err, want error, parts ...string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%v, want %v", err, want)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %q: %v", part, err)
		}
	}
}

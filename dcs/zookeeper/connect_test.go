package zookeeper_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/zookeeper"
)

const (
	dir = "/demo"
	ttl = 4 * time.Second
	// within bounds every wait, for much longer than a busy machine needs.
	within = 30 * time.Second
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

// follower runs a watch and remembers its elements.
type follower struct {
	t    testing.TB
	dir  string
	c    <-chan dcs.Snapshot
	wait func() error
	last dcs.Snapshot
}

func follow(t testing.TB, s dcs.Reader) *follower {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c, wait := dcs.Latest(s.Watch(ctx, dir))
	t.Cleanup(func() {
		cancel()
		_ = wait()
	})
	return &follower{t: t, c: c, wait: wait}
}

// until waits for an element.
func (f *follower) until(what string, ok func(dcs.Snapshot) bool) {
	f.t.Helper()
	begin, timeout := time.Now(), time.After(within)
	for {
		select {
		case s, open := <-f.c:
			if !open {
				f.t.Fatalf("watch ended while waiting until it is %s: %v", what, f.wait())
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

// end waits for the end of the watch, and returns why.
func (f *follower) end() error {
	f.t.Helper()
	timeout := time.After(within)
	for {
		select {
		case _, open := <-f.c:
			if !open {
				return f.wait()
			}
		case <-timeout:
			f.t.Fatalf("the watch does not end; it is %v, stale: %v", content(f.last), f.last.Stale)
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

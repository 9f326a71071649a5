package embedded_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/embedded"
	"github.com/pgconvoy/pgconvoy/internal/leak"
	"github.com/pgconvoy/pgconvoy/internal/porttest"
)

// patience is what a busy machine may take for a start, an election or an answer.
const patience = time.Minute

// cluster is three members in this process.
type cluster struct {
	t     *testing.T
	dir   string
	peers map[string]netip.AddrPort
}

func newCluster(t *testing.T) cluster {
	t.Helper()
	c := cluster{t, t.TempDir(), make(map[string]netip.AddrPort)}
	for _, name := range []string{"a", "b", "c"} {
		c.peers[name] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(porttest.Free(t)))
	}
	t.Cleanup(func() {
		for name := range c.peers {
			if b, err := os.ReadFile(c.config(name).Log); t.Failed() && err == nil {
				t.Logf("log of %s:\n%s", name, b)
			}
		}
	})
	return c
}

func (c cluster) config(name string) embedded.Config {
	return embedded.Config{
		Name: name, Peers: c.peers, Dir: filepath.Join(c.dir, name), NoSync: true, Log: filepath.Join(c.dir, name+".log"),
	}
}

// start starts members at the same time, and closes them at the end.
func (c cluster) start(names ...string) map[string]*embedded.Server {
	c.t.Helper()
	begin := time.Now()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	members, errs := make([]*embedded.Server, len(names)), make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { members[i], errs[i] = embedded.Start(ctx, c.config(name)) })
	}
	wg.Wait()
	byName := make(map[string]*embedded.Server)
	for i, s := range members {
		if s != nil {
			c.t.Cleanup(func() { c.close(s) })
			byName[names[i]] = s
		}
	}
	if err := errors.Join(errs...); err != nil {
		c.t.Fatal(err)
	}
	c.t.Logf("%v started in %v", names, time.Since(begin).Round(time.Millisecond))
	return byName
}

func (c cluster) close(s *embedded.Server) {
	c.t.Helper()
	begin := time.Now()
	if err := s.Close(); err != nil {
		c.t.Error(err)
	}
	c.t.Logf("%s closed in %v", s.Endpoint(), time.Since(begin).Round(time.Millisecond))
}

// serves writes through one member and reads through another. Each tries again while an election may be going on.
func (c cluster) serves(writer, reader *embedded.Server, value string) {
	c.t.Helper()
	begin := time.Now()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	key := "/a/" + value
	var err error
	for again := true; again && ctx.Err() == nil; again = err != nil && !errors.Is(err, dcs.ErrConflict) { // it is there
		_, err = writer.Store().Put(ctx, key, []byte(value), dcs.Version{})
	}
	var snap dcs.Snapshot
	for again := true; again && ctx.Err() == nil; again = err != nil {
		snap, err = reader.Store().Get(ctx, "/a")
	}
	if e, _ := snap.Get(key); err != nil || string(e.Value) != value {
		c.t.Fatalf("one member reads %q, %v; another wrote %q", e.Value, err, value)
	}
	c.t.Logf("%s after %v", value, time.Since(begin).Round(time.Millisecond))
}

func TestMembers(t *testing.T) {
	leak.Check(t)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	c := newCluster(t)
	m := c.start("a", "b", "c")
	c.serves(m["a"], m["c"], "by three")
	for name, s := range m {
		if got := s.Client().Endpoints(); len(got) != 1 || got[0] != s.Endpoint() {
			t.Errorf("the client of %s speaks to %v, not to %s alone", name, got, s.Endpoint())
		}
		_, list := call(t, http.MethodPost, s.Endpoint()+"/v3/cluster/member/list", `{}`)
		for name, addr := range c.peers {
			if !strings.Contains(list, fmt.Sprintf(`"name":%q`, name)) || !strings.Contains(list, "http://"+addr.String()) {
				t.Errorf("%s at %v is not among the members: %s", name, addr, list)
			}
		}
	}

	c.close(m["a"])
	c.serves(m["b"], m["c"], "by two")
	forgetful := c.config("a")
	forgetful.Dir = t.TempDir()
	if _, err := embedded.Start(t.Context(), forgetful); err == nil || !strings.Contains(err.Error(), "already been bootstrapped") {
		t.Errorf("a member without its data is let in: %v", err)
	}

	c.close(m["b"])
	c.refuses(m["c"])

	// The data of one that comes back is what it was, and the two are a majority.
	m["b"] = c.start("b")["b"]
	c.serves(m["c"], m["b"], "by two again")
	m["a"] = c.start("a")["a"]
	c.serves(m["a"], m["b"], "by three again")
	snap, err := m["a"].Store().Get(t.Context(), "/a")
	for _, key := range []string{"/a/by three", "/a/by two", "/a/by two again", "/a/by three again"} {
		if _, ok := snap.Get(key); !ok {
			t.Errorf("%s is lost, %v", key, err)
		}
	}
}

// refuses asks a member without a majority: neither reads nor writes are answered, and whoever asks is told in time.
func (c cluster) refuses(s *embedded.Server) {
	c.t.Helper()
	for what, ask := range map[string]func(context.Context) error{
		"write": func(ctx context.Context) error {
			_, err := s.Store().Put(ctx, "/a/by one", nil, dcs.Version{})
			return err
		},
		"read": func(ctx context.Context) error {
			_, err := s.Store().Get(ctx, "/a")
			return err
		},
	} {
		begin := time.Now()
		ctx, cancel := context.WithTimeout(c.t.Context(), time.Second)
		if err := ask(ctx); err == nil {
			c.t.Errorf("one member of three answers a %s", what)
		}
		cancel()
		if d := time.Since(begin); d > patience/2 {
			c.t.Errorf("a %s with a second's time was refused after %v", what, d)
		}
	}
}

// Clients that wait for a majority do not keep a member from stopping, and are told why.
func TestCloseWithoutMajority(t *testing.T) {
	leak.Check(t)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	c := newCluster(t)
	m := c.start("a", "b")
	c.close(m["a"])
	type answer struct {
		status int
		text   string
	}
	write := make(chan answer)
	go func() {
		defer close(write) // also when the call fails the test
		resp, text := call(t, http.MethodPost, m["b"].Endpoint()+"/v3/kv/put", `{"key":"L2E="}`)
		write <- answer{resp.StatusCode, text}
	}()
	watch, wait := dcs.Latest(m["b"].Store().Watch(t.Context(), "/a"))
	for s := range watch {
		if s.Stale != nil { // after a second, in which the write has got to the server
			break
		}
	}
	c.close(m["b"])
	if got := <-write; got.status != http.StatusServiceUnavailable || !strings.Contains(got.text, "server stopped") {
		t.Errorf("a write that a member alone cannot do: %v, want 503 and why", got)
	}
	if err := wait(); err == nil {
		t.Error("the watch ended without a reason although its client is closed")
	}
}

// The first member waits for others, as long as it may.
func TestStartWithoutMajority(t *testing.T) {
	leak.Check(t)
	c := newCluster(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	begin := time.Now()
	_, err := embedded.Start(ctx, c.config("a"))
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "a majority of its 3 members") {
		t.Errorf("%v, want the deadline and what is missing", err)
	}
	if d := time.Since(begin); d > patience/2 {
		t.Errorf("a start with a second's time fails after %v", d)
	}
	// What it has begun is no obstacle.
	m := c.start("a", "b")
	c.serves(m["a"], m["b"], "by two")
}

func TestWrongMembers(t *testing.T) {
	a, b := netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("127.0.0.1:2")
	for _, c := range []struct {
		name  string
		peers map[string]netip.AddrPort
		want  string
	}{
		{"c", map[string]netip.AddrPort{"a": a, "b": b}, `Name: "c" is not one of Peers, which are a, b`},
		{"", map[string]netip.AddrPort{"a": a}, `Name: "pgconvoy" is not one of Peers`},
		{"a,b", nil, `Name: "a,b" holds`},
		{"a", map[string]netip.AddrPort{"a": a, "b=": b}, `Peers: "b="`},
		{"a", map[string]netip.AddrPort{"a": a, "": b}, `Peers: ""`},
		{"a", map[string]netip.AddrPort{"a": a, "b": {}}, "Peers: the address of b"},
		{"a", map[string]netip.AddrPort{"a": netip.AddrPortFrom(a.Addr(), 0)}, "Peers: the address of a"},
		{"a", map[string]netip.AddrPort{"a": a, "b": a}, "Peers: a and b have the same address"},
	} {
		_, err := embedded.Start(t.Context(), embedded.Config{Name: c.name, Peers: c.peers})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q of %v: %v, want %s", c.name, c.peers, err, c.want)
		}
	}
}

// A peer's port that is taken is said by name, and no other is tried instead.
func TestPeerPortTaken(t *testing.T) {
	leak.Check(t)
	c := newCluster(t)
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(c.peers["a"]))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = embedded.Start(t.Context(), c.config("a"))
	want := fmt.Sprintf("Peers: the address of a: listen tcp %v: bind: address already in use", c.peers["a"])
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}

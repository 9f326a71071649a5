package xds_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/pgconvoy/pgconvoy/envoyconf"
	"github.com/pgconvoy/pgconvoy/envoyconf/internal/envoytest"
	"github.com/pgconvoy/pgconvoy/envoyconf/xds"
)

// entry is a real Envoy with its entry points.
type entry struct {
	*envoytest.Envoy
	write, read netip.AddrPort
}

// start runs an Envoy that follows the given control planes and listens for write and read.
func start(t testing.TB, node string, l4 envoyconf.L4, controlPlanes ...netip.AddrPort) entry {
	t.Helper()
	envoytest.Binary(t)
	e := entry{write: envoytest.Free(t), read: envoytest.Free(t)}
	admin := envoytest.Free(t)
	b, err := l4.Bootstrap(envoyconf.Fleet{
		Node: node, Admin: admin, ControlPlanes: controlPlanes,
		Listeners: []envoyconf.Listener{{Service: "write", Listen: e.write}, {Service: "read", Listen: e.read}},
	})
	if err != nil {
		t.Fatal(err)
	}
	e.Envoy = envoytest.Start(t, b, admin)
	return e
}

// stateOfTheWorld makes the bootstrap use the other variant of the protocol.
var stateOfTheWorld = envoyconf.L4{Adjust: func(b *bootstrapv3.Bootstrap) error {
	b.GetDynamicResources().GetAdsConfig().ApiType = corev3.ApiConfigSource_GRPC
	return nil
}}

func of(backends ...*envoytest.Backend) []envoyconf.Endpoint {
	var e []envoyconf.Endpoint
	for _, b := range backends {
		e = append(e, envoyconf.Endpoint{Addr: b.Addr})
	}
	return e
}

// ask opens a connection and returns it with the backend that answered on it.
func ask(t testing.TB, to netip.AddrPort) (*envoytest.Client, netip.AddrPort) {
	t.Helper()
	c := envoytest.Dial(t, to)
	a, err := c.Ask()
	if err != nil {
		t.Fatalf("through %s: %v", to, err)
	}
	return c, a
}

// settle makes one connection, wherever it ends: the acknowledgement is the main thread's, and the worker, which has
// been told before, has heard of it when it has served another connection.
func settle(to netip.AddrPort) { _, _ = envoytest.Once(to) }

// never opens n connections; none may reach the backend.
func never(t testing.TB, to netip.AddrPort, b *envoytest.Backend, n int) {
	t.Helper()
	settle(to)
	for i := range n {
		c, a := ask(t, to)
		c.Close()
		if a == b.Addr {
			t.Fatalf("connection %d reached %s", i, a)
		}
	}
}

// connectedTo opens connections until one is on b.
func connectedTo(t testing.TB, to netip.AddrPort, b *envoytest.Backend) *envoytest.Client {
	t.Helper()
	for range 100 {
		c, a := ask(t, to)
		if a == b.Addr {
			return c
		}
	}
	t.Fatalf("100 connections, none to %s", b.Addr)
	return nil
}

func lives(t testing.TB, c *envoytest.Client, on *envoytest.Backend) {
	t.Helper()
	if a, err := c.Ask(); err != nil || a != on.Addr {
		t.Fatalf("the old connection got %v, %v", a, err)
	}
}

func TestEnvoyFollows(t *testing.T) {
	for name, l4 := range map[string]envoyconf.L4{"delta": {}, "sotw": stateOfTheWorld} {
		t.Run(name, func(t *testing.T) {
			s := xds.New(xds.Config{Logger: logger(t)})
			addr, _ := serve(t, s, "127.0.0.1:0")
			a, b, c := envoytest.NewBackend(t), envoytest.NewBackend(t), envoytest.NewBackend(t)
			set(t, s, "write", of(a, b))
			set(t, s, "read", of(c))
			begin := time.Now()
			e := start(t, "envoy-1", l4, addr)
			e.Ready()
			t.Logf("ready after %v", time.Since(begin))
			e.Healthy("write", a, b)
			e.Healthy("read", c)
			if _, got := ask(t, e.read); got != c.Addr {
				t.Errorf("read reached %s", got)
			}
			ca, cb := connectedTo(t, e.write, a), connectedTo(t, e.write, b)

			// Draining: nothing new from the moment that Wait returns; what is there stays, although the
			// listening socket closes and a health check would fail.
			drain := of(a, b)
			drain[1].Health = envoyconf.Draining
			begin = time.Now()
			wait(t, s, "write", set(t, s, "write", drain))
			t.Logf("Set to applied %v", time.Since(begin))
			never(t, e.write, b, 20)
			b.StopListening()
			time.Sleep(3 * time.Second) // six intervals of the health check
			lives(t, cb, b)

			// Removed: the same.
			wait(t, s, "write", set(t, s, "write", of(a)))
			never(t, e.write, b, 20)
			lives(t, cb, b)
			lives(t, ca, a)

			// Another one comes and gets connections as soon as its first health check passes.
			d := envoytest.NewBackend(t)
			wait(t, s, "write", set(t, s, "write", of(a, d)))
			e.Healthy("write", a, d)
			connectedTo(t, e.write, d)
			lives(t, ca, a)

			// Emptied: clients are refused at once, not left to hang.
			wait(t, s, "write", set(t, s, "write", nil))
			settle(e.write)
			begin = time.Now()
			if got, err := envoytest.Dial(t, e.write).Ask(); err == nil {
				t.Errorf("an empty service answered from %s", got)
			}
			if d := time.Since(begin); d > 5*time.Second {
				t.Errorf("refused only after %v", d)
			}
		})
	}
}

func TestEnvoyKeepsItsEndpointsWithoutControlPlane(t *testing.T) {
	s := xds.New(xds.Config{})
	addr, stop := serve(t, s, envoytest.Free(t).String()) // free for the next one too
	a, b := envoytest.NewBackend(t), envoytest.NewBackend(t)
	v := set(t, s, "write", of(a))
	set(t, s, "read", of(a))
	e := start(t, "envoy-1", envoyconf.L4{}, addr)
	e.Ready()
	wait(t, s, "write", v)
	e.Healthy("write", a)
	old := connectedTo(t, e.write, a)
	stop()
	time.Sleep(2 * time.Second)
	connectedTo(t, e.write, a)
	lives(t, old, a)

	// Another control plane at the same address, which knows more by now.
	next := xds.New(xds.Config{Logger: logger(t)})
	v = set(t, next, "write", of(b))
	r := set(t, next, "read", of(a))
	serve(t, next, addr.String())
	begin := time.Now()
	await(t, next, "envoy-1", func(e []envoyconf.EnvoyStatus) bool { return len(e) == 1 && e[0].Applied["write"] == v })
	t.Logf("back after %v", time.Since(begin))
	if d := time.Since(begin); d > 10*time.Second { // Envoy's default grows to 30 s
		t.Errorf("back only after %v", d)
	}
	wait(t, next, "read", r)
	e.Healthy("write", b)
	never(t, e.write, a, 20)
	lives(t, old, a)
}

func TestEnvoyChangesToTheOtherControlPlane(t *testing.T) {
	a := envoytest.NewBackend(t)
	var servers []*xds.Server
	var addrs []netip.AddrPort
	var stops []func()
	for range 2 {
		s := xds.New(xds.Config{})
		set(t, s, "write", of(a))
		set(t, s, "read", of(a))
		addr, stop := serve(t, s, "127.0.0.1:0")
		servers, addrs, stops = append(servers, s), append(addrs, addr), append(stops, stop)
	}
	e := start(t, "envoy-1", envoyconf.L4{}, addrs...)
	e.Ready()
	first := 0
	if len(servers[1].Envoys()) == 1 {
		first = 1
	}
	v := envoyconf.Version(of(a))
	all := func(e []envoyconf.EnvoyStatus) bool {
		return len(e) == 1 && e[0].Applied["write"] == v && e[0].Applied["read"] == v
	}
	await(t, servers[first], "envoy-1", all)
	before := updates(t, e)
	begin := time.Now()
	stops[first]()
	await(t, servers[1-first], "envoy-1", all)
	t.Logf("changed over after %v", time.Since(begin))
	if after := updates(t, e); after != before {
		t.Errorf("equal versions were sent again: %s, then %s", before, after)
	}
	e.Healthy("write", a)
	connectedTo(t, e.write, a)
}

// updates are the endpoint updates that Envoy took.
func updates(t testing.TB, e entry) string {
	t.Helper()
	out, err := e.Get("/stats?filter=cluster.(write|read).update_success")
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestFailedHealthCheckTakesAnEndpointOut(t *testing.T) {
	s := xds.New(xds.Config{})
	addr, _ := serve(t, s, "127.0.0.1:0")
	a, b := envoytest.NewBackend(t), envoytest.NewBackend(t)
	set(t, s, "write", of(a, b))
	set(t, s, "read", of(a))
	e := start(t, "envoy-1", envoyconf.L4{}, addr)
	e.Ready()
	e.Healthy("write", a, b)
	old := connectedTo(t, e.write, b)
	if err := old.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	b.Hang()
	e.Healthy("write", a)
	t.Logf("a hung endpoint was out after %v", time.Since(begin))
	if _, err := old.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the hung connection was not cut: %v", err)
	}
	t.Logf("its connection was cut after %v", time.Since(begin))
	never(t, e.write, b, 20)
}

// A PgBouncer that dies fails no new connection: each finds its way to a living one, even before the health check
// notices, and although the dead one has the fewest connections.
func TestDeathOfAnEndpointFailsNoNewConnection(t *testing.T) {
	s := xds.New(xds.Config{})
	addr, _ := serve(t, s, "127.0.0.1:0")
	a, b := envoytest.NewBackend(t), envoytest.NewBackend(t)
	set(t, s, "write", of(a, b))
	set(t, s, "read", of(a))
	e := start(t, "envoy-1", envoyconf.L4{}, addr)
	e.Ready()
	e.Healthy("write", a, b)
	for range 10 {
		connectedTo(t, e.write, a)
	}
	b.Kill()
	var took []time.Duration
	var mu sync.Mutex
	var clients sync.WaitGroup
	until := time.Now().Add(2 * time.Second)
	for range 20 {
		clients.Go(func() {
			for time.Now().Before(until) {
				begin := time.Now()
				got, err := envoytest.Once(e.write)
				if err != nil || got != a.Addr {
					t.Errorf("got %v, %v", got, err)
				}
				mu.Lock()
				took = append(took, time.Since(begin))
				mu.Unlock()
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	clients.Wait()
	slices.Sort(took)
	t.Logf("%d connections: half within %v, all within %v", len(took), took[len(took)/2], took[len(took)-1])
	e.Healthy("write", a)
}

func TestTwoEnvoysAreWaitedFor(t *testing.T) {
	s := xds.New(xds.Config{})
	addr, _ := serve(t, s, "127.0.0.1:0")
	a, b := envoytest.NewBackend(t), envoytest.NewBackend(t)
	set(t, s, "write", of(a))
	set(t, s, "read", of(a))
	one, two := start(t, "envoy-1", envoyconf.L4{}, addr), start(t, "envoy-2", envoyconf.L4{}, addr)
	one.Ready()
	two.Ready()
	await(t, s, "both", connected(2))
	v := set(t, s, "write", of(b))
	wait(t, s, "write", v)
	for i, e := range s.Envoys() {
		if e.Applied["write"] != v || e.Node != fmt.Sprintf("envoy-%d", i+1) {
			t.Errorf("got %+v", e)
		}
	}
	two.Kill()
	await(t, s, "one", connected(1))
}

// What the validation of Set does not know of, Envoy may still refuse; it keeps what it had.
func TestEnvoyRejects(t *testing.T) {
	for name, l4 := range map[string]envoyconf.L4{"delta": {}, "sotw": stateOfTheWorld} {
		t.Run(name, func(t *testing.T) {
			s := xds.New(xds.Config{Logger: logger(t)})
			addr, _ := serve(t, s, "127.0.0.1:0")
			a := envoytest.NewBackend(t)
			v := set(t, s, "write", of(a))
			r := set(t, s, "read", of(a))
			e := start(t, "envoy-1", l4, addr)
			e.Ready()
			wait(t, s, "write", v)
			e.Healthy("write", a)
			bad := s.SetUnchecked("write", "bad", &corev3.Node{Id: "not endpoints"})
			envoytest.Eventually(t, time.Minute, "a rejection", func() error {
				if got := s.Envoys()[0]; got.Rejected["write"] == "" || got.Applied["write"] != v || got.Applied["read"] != r {
					return fmt.Errorf("have %+v", got)
				}
				return nil
			})
			err := s.Wait(t.Context(), "write", bad)
			if w, ok := errors.AsType[*xds.WaitError](err); !ok || w.Rejected["envoy-1"] == "" || strings.ContainsRune(err.Error(), '\n') {
				t.Errorf("got %v", err)
			}
			t.Log(err)
			time.Sleep(200 * time.Millisecond) // thousands of times, in a loop
			out, err := e.Get("/stats?filter=cluster.write.update_rejected")
			if err != nil || strings.TrimSpace(out) != "cluster.write.update_rejected: 1" {
				t.Errorf("rejected more than once: %s, %v", out, err)
			}
			connectedTo(t, e.write, a)
			wait(t, s, "write", set(t, s, "write", of(a)))
		})
	}
}

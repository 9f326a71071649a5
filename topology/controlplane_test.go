package topology

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgconvoy/pgconvoy/envoyconf"
	"github.com/pgconvoy/pgconvoy/internal/record"
)

// fakeRouter is a Router with balancers that a test speaks for.
type fakeRouter struct {
	mu      sync.Mutex
	set     map[string][]envoyconf.Endpoint
	sets    int
	err     map[string]error // by service
	envoys  []envoyconf.EnvoyStatus
	changed chan struct{}
}

func (f *fakeRouter) Set(_ context.Context, service string, e []envoyconf.Endpoint) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sets++
	if err := f.err[service]; err != nil {
		return "", err
	}
	if f.set == nil {
		f.set = map[string][]envoyconf.Endpoint{}
	}
	f.set[service] = e
	return envoyconf.Version(e), envoyconf.Validate(service, e)
}

func (f *fakeRouter) Wait(context.Context, string, string) error { return nil }

func (f *fakeRouter) Envoys() []envoyconf.EnvoyStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.envoys)
}

func (f *fakeRouter) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.changed == nil {
		f.changed = make(chan struct{})
	}
	return f.changed
}

func (f *fakeRouter) report(e ...envoyconf.EnvoyStatus) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.envoys = e
	close(f.changed)
	f.changed = nil
}

func (f *fakeRouter) has(t *testing.T, service string, want ...envoyconf.Endpoint) {
	t.Helper()
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	if got := f.set[service]; !slices.Equal(got, want) {
		t.Errorf("%s has %v, want %v", service, got, want)
	}
}

func (f *fakeRouter) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sets
}

// listens is where a pooler of these tests listens.
func listens(n byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 0, n}), 6432)
}

func (b *bench) enlist(name, service string, n byte) {
	b.Helper()
	b.put(record.FleetKey(demo, name), record.Encode(&record.Fleet{Service: service, Address: listens(n)}))
}

func (b *bench) register(name string, state PoolerState) {
	b.Helper()
	b.put(record.PoolerKey(demo, name), record.Encode(&record.Pooler{State: string(state), Service: "write"}))
}

// published is the record of a control plane; zero: there is none.
func (b *bench) published(name string) record.ControlPlane {
	b.Helper()
	synctest.Wait()
	e := b.entry(record.ControlPlaneKey(demo, name))
	if e.Value == nil {
		return record.ControlPlane{}
	}
	p, err := record.Decode[record.ControlPlane](e)
	if err != nil {
		b.Fatal(err)
	}
	return p
}

func (b *bench) control(r Router) *ControlPlane {
	b.Helper()
	c := &ControlPlane{Cluster: b.cluster(), Name: "cp-1", Router: r}
	b.run(c)
	return c
}

func TestControlPlaneServesTheRoster(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.store.SetDown(errors.New("no quorum"))
		r := &fakeRouter{}
		c := b.control(r)
		b.wait(time.Minute)
		if r.count() > 0 {
			t.Error("a store that never answered was believed")
		}
		b.store.SetDown(nil)
		synctest.Wait()

		one, two := envoyconf.Endpoint{Addr: listens(1)}, envoyconf.Endpoint{Addr: listens(2)}
		b.enlist("pgb-2", "write", 2)
		b.enlist("pgb-1", "write", 1)
		b.enlist("pgb-4", "read", 4)
		r.has(t, "write", one, two)
		r.has(t, "read", envoyconf.Endpoint{Addr: listens(4)})

		n := r.count()
		b.register("pgb-1", Routed)
		b.register("pgb-1", Held)
		b.remove(record.PoolerKey(demo, "pgb-1")) // it expires
		b.wait(time.Minute)
		if r.count() != n {
			t.Errorf("registrations alone led to %d pushes", r.count()-n)
		}

		sick := envoyconf.Endpoint{Addr: listens(1), Health: envoyconf.Unhealthy}
		b.register("pgb-1", Failed)
		r.has(t, "write", sick, two)
		b.register("pgb-2", Failed) // nobody does better: both stay
		r.has(t, "write", one, two)
		b.register("pgb-2", Routed)
		r.has(t, "write", sick, two)

		b.store.SetDown(errors.New("no quorum"))
		b.wait(10 * time.Minute)
		r.has(t, "write", sick, two)
		b.store.SetDown(nil)
		synctest.Wait()

		b.remove(record.FleetKey(demo, "pgb-1"))
		r.has(t, "write", two)
		b.remove(record.FleetKey(demo, "pgb-2")) // the last one: clients have nowhere else to go
		r.has(t, "write", two)
		r.has(t, "read", envoyconf.Endpoint{Addr: listens(4)})

		if err := c.Run(b.Context()); err == nil || !strings.Contains(err.Error(), "already running") {
			t.Errorf("a second Run returned %v", err)
		}
	})
}

// A renamed pooler has two roster entries until the old one is removed; its balancers want each address once.
func TestControlPlaneAndARenamedPooler(t *testing.T) {
	inBubble(t, func(b *bench) {
		r := &fakeRouter{}
		b.control(r)
		b.enlist("old", "write", 1)
		b.enlist("new", "write", 1)
		b.enlist("pgb-2", "write", 2)
		b.register("old", Failed)
		r.has(t, "write", envoyconf.Endpoint{Addr: listens(1)}, envoyconf.Endpoint{Addr: listens(2)})
	})
}

func TestControlPlaneWithAnUnreadableEntry(t *testing.T) {
	inBubble(t, func(b *bench) {
		r := &fakeRouter{}
		b.control(r)
		b.enlist("pgb-1", "write", 1)
		r.has(t, "write", envoyconf.Endpoint{Addr: listens(1)})
		b.put(record.FleetKey(demo, "pgb-1"), []byte(`{"v":99}`)) // by a newer program
		b.wait(time.Minute)
		r.has(t, "write", envoyconf.Endpoint{Addr: listens(1)})
		if kept := b.published("cp-1").Services["write"].Kept; !strings.Contains(kept, "version 99") {
			t.Errorf("kept: %q", kept)
		}
		b.enlist("pgb-2", "write", 2) // the router has this service
		r.has(t, "write", envoyconf.Endpoint{Addr: listens(1)})
		b.enlist("pgb-4", "read", 4) // and has nothing of this one
		r.has(t, "read", envoyconf.Endpoint{Addr: listens(4)})
		late := &fakeRouter{}
		b.run(&ControlPlane{Cluster: b.cluster(), Name: "cp-2", Router: late})
		late.has(t, "write", envoyconf.Endpoint{Addr: listens(2)})
		if kept := b.published("cp-2").Services["write"].Kept; !strings.Contains(kept, "version 99") {
			t.Errorf("a part is served without a word: %q", kept)
		}
		b.remove(record.FleetKey(demo, "pgb-2"))
		b.enlist("pgb-1", "write", 1)
		r.has(t, "write", envoyconf.Endpoint{Addr: listens(1)})
		late.has(t, "write", envoyconf.Endpoint{Addr: listens(1)})
		if kept := b.published("cp-1").Services["write"].Kept; kept != "" {
			t.Errorf("kept: %q", kept)
		}
	})
}

func TestControlPlaneRouterFails(t *testing.T) {
	inBubble(t, func(b *bench) {
		r := &fakeRouter{err: map[string]error{"read": errDead}}
		b.enlist("pgb-1", "write", 1)
		b.enlist("pgb-4", "read", 4)
		b.control(r)
		r.has(t, "write", envoyconf.Endpoint{Addr: listens(1)}) // the other service is not kept waiting
		b.wait(2 * time.Second)
		if n := r.count(); n < 5 || n > 15 {
			t.Errorf("%d attempts in 2 s", n)
		}
		r.mu.Lock()
		r.err = nil
		r.mu.Unlock()
		b.wait(time.Second)
		r.has(t, "read", envoyconf.Endpoint{Addr: listens(4)})
	})
}

func TestControlPlaneReports(t *testing.T) {
	inBubble(t, func(b *bench) {
		r := &fakeRouter{}
		b.enlist("pgb-1", "write", 1)
		b.control(r)
		synctest.Wait()
		version := envoyconf.Version([]envoyconf.Endpoint{{Addr: listens(1)}})
		r.report(
			envoyconf.EnvoyStatus{Node: "envoy-2", Applied: map[string]string{"write": "old"}, Rejected: map[string]string{"write": "bad"}},
			envoyconf.EnvoyStatus{Node: "envoy-1", Applied: map[string]string{"write": version}},
		)
		b.wait(time.Second)
		p := b.published("cp-1")
		s := p.Services["write"]
		if s.Version != version || !slices.Equal(s.Envoys, []string{"envoy-1", "envoy-2"}) ||
			!slices.Equal(s.Applied, []string{"envoy-1"}) || !maps.Equal(s.Rejected, map[string]string{"envoy-2": "bad"}) {
			t.Errorf("published %+v", p)
		}

		b.store.SetDown(errors.New("no quorum"))
		b.wait(time.Minute)
		r.report(envoyconf.EnvoyStatus{Node: "envoy-1", Applied: map[string]string{"write": version}})
		b.wait(time.Minute)
		b.store.SetDown(nil)
		b.wait(2 * time.Second)
		if p := b.published("cp-1"); !slices.Equal(p.Services["write"].Envoys, []string{"envoy-1"}) {
			t.Errorf("after the outage published %+v", p)
		}
	})
}

package topology

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/envoyconf"
	"github.com/pgconvoy/pgconvoy/internal/record"
)

func (b *bench) enlistDraining(name, service string, n byte) {
	b.Helper()
	b.put(record.FleetKey(demo, name), record.Encode(&record.Fleet{Service: service, Address: listens(n), Draining: true}))
}

func TestControlPlaneDrains(t *testing.T) {
	inBubble(t, func(b *bench) {
		r := &fakeRouter{}
		b.control(r)
		b.enlist("pgb-1", "write", 1)
		b.enlist("pgb-2", "write", 2)
		b.enlist("pgb-4", "read", 4)
		one, two := envoyconf.Endpoint{Addr: listens(1)}, envoyconf.Endpoint{Addr: listens(2)}
		leaving := envoyconf.Endpoint{Addr: listens(2), Health: envoyconf.Draining}
		b.enlistDraining("pgb-2", "write", 2)
		r.has(t, "write", one, leaving)
		s := b.published("cp-1").Services["write"]
		if !slices.Equal(s.Draining, []string{"pgb-2"}) || s.Version != envoyconf.Version([]envoyconf.Endpoint{one, leaving}) {
			t.Errorf("published %+v", s)
		}
		b.register("pgb-2", Failed) // draining comes first: nobody is cut off for a health check
		r.has(t, "write", one, leaving)
		b.register("pgb-1", Failed) // and who drains is not called back for it
		r.has(t, "write", one, leaving)

		b.enlistDraining("pgb-1", "write", 1) // nobody is left: they serve as long as they can
		r.has(t, "write", one, two)
		if s := b.published("cp-1").Services["write"]; len(s.Draining) > 0 {
			t.Errorf("published %+v", s)
		}
		b.enlist("pgb-1", "write", 1)
		r.has(t, "write", one, leaving)
		b.enlist("pgb-3", "write", 2) // it was renamed: the new name's clients are not turned away
		r.has(t, "write", envoyconf.Endpoint{Addr: listens(1), Health: envoyconf.Unhealthy}, two)
		if s := b.published("cp-1").Services["write"]; len(s.Draining) > 0 {
			t.Errorf("published %+v", s)
		}
	})
}

// Whatever the store says, or does not say, a service that had endpoints keeps some.
func TestControlPlaneNeverEmpties(t *testing.T) {
	one := envoyconf.Endpoint{Addr: listens(1)}
	start := func(b *bench) *fakeRouter {
		b.enlist("pgb-1", "write", 1)
		b.enlist("pgb-4", "read", 4)
		r := &fakeRouter{}
		b.control(r)
		r.has(b.T, "write", one)
		return r
	}
	kept := func(b *bench, want string) {
		b.Helper()
		for service, s := range b.published("cp-1").Services {
			if s.Kept != want || s.Version == "" {
				b.Errorf("%s published %+v, want kept %q", service, s, want)
			}
		}
	}
	const gone = "the roster has no pooler of this service"
	t.Run("wiped", func(t *testing.T) {
		inBubble(t, func(b *bench) {
			restore := b.store.Backup()
			_ = restore
			r := start(b)
			n := r.count()
			restore() // as it was before it had anything
			b.wait(time.Minute)
			r.has(t, "write", one)
			r.has(t, "read", envoyconf.Endpoint{Addr: listens(4)})
			kept(b, gone)
			if r.count() != n {
				t.Errorf("%d pushes", r.count()-n)
			}
			b.enlist("pgb-1", "write", 1) // agents register again
			b.enlist("pgb-4", "read", 4)
			kept(b, "")
			if r.count() != n {
				t.Errorf("%d pushes of what the router has", r.count()-n)
			}
		})
	})
	t.Run("expired", func(t *testing.T) {
		inBubble(t, func(b *bench) {
			r := start(b)
			n := r.count()
			b.register("pgb-1", Routed)
			b.remove(record.PoolerKey(demo, "pgb-1"))
			b.wait(time.Minute)
			r.has(t, "write", one)
			if r.count() != n {
				t.Errorf("%d pushes", r.count()-n)
			}
			kept(b, "")
		})
	})
	t.Run("store lost", func(t *testing.T) {
		inBubble(t, func(b *bench) {
			r := start(b)
			n := r.count()
			b.store.SetDown(errors.New("no quorum"))
			b.wait(10 * time.Minute)
			r.has(t, "write", one)
			b.store.SetDown(nil)
			b.wait(10 * time.Second)
			r.has(t, "write", one)
			if r.count() != n {
				t.Errorf("%d pushes", r.count()-n)
			}
			kept(b, "")
		})
	})
	t.Run("all removed", func(t *testing.T) {
		inBubble(t, func(b *bench) {
			r := start(b)
			b.remove(record.FleetKey(demo, "pgb-1"))
			r.has(t, "write", one)
			if s := b.published("cp-1").Services["write"]; s.Kept != gone {
				t.Errorf("published %+v", s)
			}
			b.enlist("pgb-2", "write", 2)
			r.has(t, "write", envoyconf.Endpoint{Addr: listens(2)})
			kept(b, "")
		})
	})
}

// A registration that expires makes no failed pooler well; a new one does, and so does a new roster entry.
func TestControlPlaneRemembersTheFailed(t *testing.T) {
	inBubble(t, func(b *bench) {
		r := &fakeRouter{}
		b.control(r)
		b.enlist("pgb-1", "write", 1)
		b.enlist("pgb-2", "write", 2)
		one, two := envoyconf.Endpoint{Addr: listens(1)}, envoyconf.Endpoint{Addr: listens(2)}
		sick := envoyconf.Endpoint{Addr: listens(1), Health: envoyconf.Unhealthy}
		b.register("pgb-1", Failed)
		r.has(t, "write", sick, two)
		n := r.count()
		b.remove(record.PoolerKey(demo, "pgb-1"))
		b.wait(time.Minute)
		if r.has(t, "write", sick, two); r.count() != n {
			t.Errorf("%d pushes", r.count()-n)
		}
		late := &fakeRouter{} // it has never seen it
		b.run(&ControlPlane{Cluster: b.cluster(), Name: "cp-2", Router: late})
		late.has(t, "write", one, two)
		b.register("pgb-1", Routed)
		r.has(t, "write", one, two)
		b.remove(record.PoolerKey(demo, "pgb-1"))
		r.has(t, "write", one, two)

		b.register("pgb-1", Failed)
		b.remove(record.PoolerKey(demo, "pgb-1"))
		b.remove(record.FleetKey(demo, "pgb-1"))
		b.enlist("pgb-1", "write", 1)
		r.has(t, "write", one, two)
	})
}

// Two control planes on one store: however a roster came about, what they serve and call it is the same.
func TestControlPlanesAgree(t *testing.T) {
	inBubble(t, func(b *bench) {
		routers := []*fakeRouter{{}, {}}
		for i, r := range routers {
			c := &ControlPlane{Cluster: b.cluster(), Name: fmt.Sprintf("cp-%d", i+1), Router: r}
			c.Store = b.store.Client()
			c.Logger = nil
			b.run(c)
		}
		b.enlist("pgb-0", "write", 100) // it stays: what is kept of a service without a roster depends on what was seen
		b.enlist("pgb-r", "read", 101)
		rng := rand.New(rand.NewPCG(7, 11))
		there := map[string]bool{}
		for range 300 {
			for range rng.IntN(6) { // together, so that a watch may skip some
				name := fmt.Sprintf("pgb-%d", 1+rng.IntN(8))
				service := []string{"write", "read"}[rng.IntN(2)]
				entry := record.Fleet{Service: service, Address: listens(byte(1 + rng.IntN(8))), Draining: rng.IntN(3) == 0}
				p := record.Pooler{State: string([]PoolerState{Routed, Held, Failed}[rng.IntN(3)]), Service: service}
				fleet, registration := record.FleetKey(demo, name), record.PoolerKey(demo, name)
				switch rng.IntN(5) {
				case 0:
					if there[fleet] {
						synctest.Wait() // what was last seen of a pooler goes with its entry, for who has seen both
						b.erase(fleet)
						synctest.Wait()
						there[fleet] = false
					}
				case 1:
					if there[registration] {
						synctest.Wait() // the last words count
						b.erase(registration)
						there[registration] = false
					}
				case 2, 3:
					b.write(fleet, record.Encode(&entry))
					there[fleet] = true
				default:
					b.write(registration, record.Encode(&p))
					there[registration] = true
				}
			}
			synctest.Wait()
			one, two := b.published("cp-1"), b.published("cp-2")
			for service, s := range one.Services {
				if o := two.Services[service]; o.Version != s.Version || !slices.Equal(o.Draining, s.Draining) || s.Version == "" {
					t.Fatalf("%s: %+v and %+v", service, s, o)
				}
				routers[0].mu.Lock()
				want := envoyconf.Version(routers[0].set[service])
				healthy := slices.ContainsFunc(routers[0].set[service], func(e envoyconf.Endpoint) bool { return e.Health == envoyconf.Healthy })
				routers[0].mu.Unlock()
				if s.Version != want || !healthy {
					t.Fatalf("%s: published %+v, serves %v", service, s, routers[0].set[service])
				}
			}
			if len(one.Services) != 2 || len(two.Services) != 2 {
				t.Fatalf("%+v and %+v", one, two)
			}
		}
		if n := routers[0].count(); n < 100 {
			t.Errorf("only %d pushes", n)
		}
	})
}

// write and erase are put and remove without a wait for what they set off.
func (b *bench) write(key string, value []byte) {
	b.Helper()
	if _, err := b.store.Put(b.Context(), key, value, b.entry(key).Version); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) erase(key string) {
	b.Helper()
	if err := b.store.Delete(b.Context(), key, b.entry(key).Version); err != nil {
		b.Fatal(err)
	}
}

// assign is a function of the content, not of the order in which a map gives it.
func TestAssignIsDeterministic(t *testing.T) {
	fleet, poolers := map[string]record.Fleet{}, map[string]record.Pooler{}
	for i := range byte(20) {
		name := fmt.Sprintf("pgb-%d", i)
		fleet[name] = record.Fleet{Service: "write", Address: listens(i%15 + 1), Draining: i%4 == 0}
		poolers[name] = record.Pooler{State: string([]PoolerState{Routed, Failed, Held}[i%3])}
	}
	first := assign(fleet, poolers)["write"]
	for range 100 {
		if a := assign(fleet, poolers)["write"]; !slices.Equal(a.endpoints, first.endpoints) || !slices.Equal(a.draining, first.draining) {
			t.Fatalf("%v and %v", a, first)
		}
	}
}

// logs are lines that a test may look at.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), part)
}

func TestControlPlaneTrouble(t *testing.T) {
	inBubble(t, func(b *bench) {
		l := &logs{}
		r := &fakeRouter{err: map[string]error{"write": errDead}}
		c := &ControlPlane{Cluster: b.cluster(), Name: "cp-1", Router: r}
		c.Logger = slog.New(slog.NewTextHandler(l, nil))
		b.enlist("pgb-1", "write", 1)
		b.run(c)
		b.wait(time.Minute)
		if n := l.count("endpoints were not set"); n != 1 {
			t.Errorf("trouble that stays was logged %d times", n)
		}
	})
}

// A second control plane of the same name is told, and the first one's record comes back when it has left.
func TestControlPlanesOfOneName(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.enlist("pgb-1", "write", 1)
		l := &logs{}
		start := func(s dcs.Store) (stop func()) {
			c := &ControlPlane{Cluster: b.cluster(), Name: "cp-1", Router: &fakeRouter{}}
			c.Store, c.Logger = s, slog.New(slog.NewTextHandler(l, nil))
			return b.run(c)
		}
		const told = "another control plane of the same name"
		start(b.store)
		first := b.published("cp-1").Instance
		stop := start(b.store.Client())
		b.wait(5 * time.Second)
		if l.count(told) == 0 {
			t.Error("nobody is told")
		}
		b.enlist("pgb-2", "write", 2) // both write
		b.wait(time.Minute)
		if n := l.count(told); n > 2 {
			t.Errorf("told %d times", n)
		}
		stop()
		b.wait(5 * time.Second)
		if p := b.published("cp-1"); p.Instance != first || p.Services["write"].Version == "" {
			t.Errorf("the record is %+v, want that of %s", p, first)
		}
	})
	inBubble(t, func(b *bench) { // one that is started again is no other
		l := &logs{}
		b.store.TTL = time.Minute
		dead := record.ControlPlane{Instance: "killed"}
		go func() {
			_ = b.store.Lease(b.Context(), func(ctx context.Context, w dcs.Writer) error {
				_, err := w.Put(ctx, record.ControlPlaneKey(demo, "cp-1"), record.Encode(&dead), dcs.Version{})
				<-ctx.Done()
				return err
			})
		}()
		synctest.Wait()
		c := &ControlPlane{Cluster: b.cluster(), Name: "cp-1", Router: &fakeRouter{}}
		c.Logger = slog.New(slog.NewTextHandler(l, nil))
		b.run(c)
		b.wait(2 * time.Minute)
		if n := l.count("same name"); n > 0 {
			t.Errorf("told %d times", n)
		}
	})
}

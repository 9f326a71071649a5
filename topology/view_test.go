package topology

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/pooler"
)

// Each part says which revision of which key it is from.
func TestViewSaysWhereFrom(t *testing.T) {
	inBubble(t, func(b *bench) {
		f := newFleet(b)
		b.enlistDraining("pgb-9", "read", 9)
		b.put(record.ControlPlaneKey(demo, "cp-1"), record.Encode(&record.ControlPlane{Services: map[string]record.ServiceState{
			"write": {Version: "v1", Draining: []string{"pgb-9"}, Kept: "why"},
		}}))
		b.operation("op", record.Prepare, limit)
		v := (&Observer{Path: demo, Store: b.store, Leaders: b.leads}).View(b.Context())
		theirs, err := b.store.Get(b.Context(), demo)
		if err != nil {
			t.Fatal(err)
		}
		check := func(what string, s Seen, key string) {
			t.Helper()
			e, ok := theirs.Get(key)
			if !ok {
				e = b.entry(key)
			}
			if s.Source != FromStore || s.Key != key || s.Revision != e.Version.Modified || s.Revision == 0 || s.Age(v.At) != 0 || s.At.IsZero() {
				t.Errorf("%s: %+v, want %s at %d", what, s, key, e.Version.Modified)
			}
		}
		check("leadership", v.Leadership.Seen, demo+"/leader")
		for _, m := range v.Members {
			check(m.Name, m.Seen, demo+"/members/"+m.Name)
		}
		check("pgb-1", v.Poolers[0].Seen, record.PoolerKey(demo, "pgb-1"))
		check("pgb-9", v.Poolers[2].Seen, record.FleetKey(demo, "pgb-9"))
		check("cp-1", v.ControlPlanes[0].Seen, record.ControlPlaneKey(demo, "cp-1"))
		check("operation", v.Operation.Seen, record.OperationKey(demo))
		if p := v.Leadership.Probe; p.Source != FromProbe || p.Key != addr1.String() || p.At.IsZero() {
			t.Errorf("probe %+v", p)
		}
		if s := v.ControlPlanes[0].Services["write"]; s.Kept != "why" || len(s.Draining) != 1 {
			t.Errorf("service %+v", s)
		}
		if p := v.Poolers[2]; !p.Draining || p.Empty {
			t.Errorf("pgb-9 %+v", p)
		}
		for _, part := range []string{"draining", "KEPT: why", "pgb-9 drained"} {
			if !strings.Contains(v.String(), part) {
				t.Errorf("%q is not in\n%s", part, v)
			}
		}
		_ = f
	})
}

// What the source of leadership knows beside the leader is in the view.
func TestViewOfTheUnplanned(t *testing.T) {
	inBubble(t, func(b *bench) {
		newFleet(b)
		l := proven("n1", addr1, epoch1)
		l.TTL, l.Requested, l.Failover = 30*time.Second, 77, patroni.Failover{Leader: "n1", Candidate: "n2"}
		l.Outage = &patroni.Outage{At: time.Now(), Failsafe: true, Reason: "n1 goes on"}
		l.Replicas = []patroni.Replica{
			{Member: "n2", Fresh: true, Lag: 20 * time.Millisecond}, {Member: "n3", Proof: patroni.Proof{Err: errDead}},
		}
		b.leads.set(l)
		v := (&Observer{Path: demo, Store: b.store, Leaders: b.leads}).View(b.Context())
		lv := v.Leadership
		if lv.TTL != l.TTL || *lv.Failover != (FailoverView{From: "n1", To: "n2", Revision: 77}) || !lv.Outage.Failsafe || lv.Outage.Reason != "n1 goes on" {
			t.Errorf("leadership %+v", lv)
		}
		if n2, n3 := v.Members[1], v.Members[2]; !n2.Fresh || n2.Lag != 20*time.Millisecond || n3.Fresh || n3.Error != errDead.Error() {
			t.Errorf("members %+v", v.Members)
		}
		for _, part := range []string{"a change from n1 to n2", "n1 goes on", "fresh, 20ms behind", "connection refused"} {
			if !strings.Contains(v.String(), part) {
				t.Errorf("%q is not in\n%s", part, v)
			}
		}
	})
}

// Whatever is known, or not, JSON has no null where a list is meant, and comes back as it was.
func TestViewAsJSON(t *testing.T) {
	inBubble(t, func(b *bench) {
		o := &Observer{Path: demo, Store: b.store}
		views := []View{o.View(b.Context()), (&Observer{}).View(b.Context())}
		b.enlist("pgb-1", "write", 1)
		b.put(demo+"/members/n1", []byte(`{"conn_url":"postgres://10.0.0.1:5432/postgres","state":"running","role":"primary"}`))
		b.put(record.ControlPlaneKey(demo, "cp-1"), []byte(`{"v":1,"services":{"write":{"version":"x"}}}`))
		o.Console = func(context.Context, string, netip.AddrPort) (pooler.State, error) {
			return pooler.State{Version: "1.24.1"}, nil
		}
		views = append(views, o.View(b.Context()))
		o.Console = func(context.Context, string, netip.AddrPort) (pooler.State, error) {
			return pooler.State{Servers: map[netip.AddrPort]int{addr1: 3, {}: 1}}, nil
		}
		views = append(views, o.View(b.Context()))
		for _, v := range views {
			text, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(text), "null") {
				t.Errorf("null in %s", text)
			}
			var back View
			if err := json.Unmarshal(text, &back); err != nil {
				t.Fatal(err)
			}
			if again, err := json.Marshal(back); err != nil || string(again) != string(text) {
				t.Errorf("%s came back as %s, %v", text, again, err)
			}
		}
		if p := views[3].Poolers[0].Pool; p == nil || p.Servers[addr1] != 3 {
			t.Errorf("pool %+v", p)
		}
	})
}

// While the store is silent a watcher sees the age grow, though nothing else happens.
func TestViewGrowsOld(t *testing.T) {
	inBubble(t, func(b *bench) {
		newFleet(b)
		o := &Observer{Path: demo, Store: b.store, Leaders: &quiet{b.leads}}
		ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
		defer cancel()
		go func() {
			time.Sleep(20 * time.Second)
			b.store.SetDown(errors.New("no quorum"))
		}()
		var last View
		aged, longest := 0, time.Duration(0)
		for v, err := range o.Watch(ctx) {
			if err != nil {
				break
			}
			if v.Stale != "" {
				if last.Stale != "" {
					longest = max(longest, v.At.Sub(last.At))
					if v.Age() < last.Age() || len(v.Poolers) != 2 || v.Leadership.Member != "n1" || v.Members[0].Seen.Age(v.At) < v.At.Sub(v.Confirmed) {
						t.Errorf("after %s: %s", last, v)
					}
				}
				aged++
			}
			last = v
		}
		if aged < 35 || longest > time.Second || last.Age() < 35*time.Second {
			t.Errorf("%d stale views, at most %s apart, the last one %s old", aged, longest, last.Age())
		}
		if !strings.Contains(last.String(), "STALE for 4") || !strings.Contains(last.String(), "s old") {
			t.Errorf("no age in\n%s", last)
		}
	})
}

// quiet is a source that says everything once.
type quiet struct{ *fakeLeaders }

func (q *quiet) Watch(ctx context.Context) iter.Seq2[patroni.Leadership, error] {
	return func(yield func(patroni.Leadership, error) bool) {
		q.mu.Lock()
		l := q.lead
		q.mu.Unlock()
		if yield(l, nil) {
			<-ctx.Done()
			yield(l, context.Cause(ctx))
		}
	}
}

// consolesOf are consoles that a test speaks for.
type consolesOf struct {
	mu    sync.Mutex
	state map[string]pooler.State
	hangs map[string]bool
	asked map[string]int
}

func (c *consolesOf) ask(ctx context.Context, name string, addr netip.AddrPort) (pooler.State, error) {
	c.mu.Lock()
	c.asked[name]++
	st, hangs := c.state[name], c.hangs[name]
	c.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return pooler.State{}, fmt.Errorf("ask %s at %s: %w", name, addr, ctx.Err())
	}
	return st, nil
}

func (c *consolesOf) do(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

func TestViewOfPools(t *testing.T) {
	inBubble(t, func(b *bench) {
		newFleet(b)
		b.enlist("pgb-3", "write", 3)
		c := &consolesOf{state: map[string]pooler.State{"pgb-1": {Version: "1.24.1", Clients: 7}}, hangs: map[string]bool{}, asked: map[string]int{}}
		o := &Observer{Path: demo, Store: b.store, Leaders: b.leads, Console: c.ask}
		began := time.Now()
		v := o.View(b.Context())
		if d := time.Since(began); d > 250*time.Millisecond {
			t.Errorf("took %s", d)
		}
		if p := v.Poolers[0].Pool; p == nil || p.Clients != 7 || p.Version != "1.24.1" || p.Seen.Source != FromConsole || p.Seen.Key != "pgb-1" || p.Seen.At.IsZero() {
			t.Errorf("pool %+v", p)
		}
		if !strings.Contains(v.String(), "7 clients, 0 waiting") {
			t.Errorf("no figures in\n%s", v)
		}

		c.do(func() { c.hangs["pgb-2"] = true })
		began = time.Now()
		v = o.View(b.Context())
		if d := time.Since(began); d > 750*time.Millisecond {
			t.Errorf("took %s with one that hangs", d)
		}
		if v.Stale != "" || v.Poolers[0].Pool == nil || v.Poolers[1].Pool != nil || v.Poolers[2].Pool == nil {
			t.Errorf("view %+v", v)
		}

		c.do(func() { clear(c.asked); clear(c.hangs) })
		ctx, cancel := context.WithTimeout(b.Context(), 30*time.Second)
		defer cancel()
		began = time.Now()
		views := 0
		go func() {
			for i := range 100 {
				time.Sleep(250 * time.Millisecond)
				c.do(func() {
					c.state["pgb-1"] = pooler.State{Clients: i}
					c.hangs["pgb-2"] = i > 40
				})
			}
		}()
		var last View
		for v, err := range o.Watch(ctx) {
			if err != nil {
				break
			}
			views++
			last = v
		}
		synctest.Wait()
		for name, n := range c.asked {
			if n < 25 || n > 31 {
				t.Errorf("%s was asked %d times in 30 s", name, n)
			}
		}
		one, two := last.Poolers[0].Pool, last.Poolers[1].Pool
		if one.Clients != 99 || one.Error != "" || one.Seen.Age(last.At) > 2*time.Second {
			t.Errorf("pgb-1: %+v", one)
		}
		if two.Error != "no answer within a second" || two.Seen.Age(last.At) < 15*time.Second || two.Clients != 0 {
			t.Errorf("pgb-2: %+v", two)
		}
		if !strings.Contains(last.String(), "ago, console: no answer within a second") {
			t.Errorf("no age in\n%s", last)
		}
		t.Logf("%d views in %s", views, time.Since(began))
	})
}

// Who leaves the roster is not asked any more, and a pooler that moves is asked where it is.
func TestPoolsFollowTheRoster(t *testing.T) {
	inBubble(t, func(b *bench) {
		newFleet(b)
		var mu sync.Mutex
		at := map[string]netip.AddrPort{}
		o := &Observer{
			Path: demo, Store: b.store, Leaders: b.leads,
			Console: func(_ context.Context, name string, addr netip.AddrPort) (pooler.State, error) {
				mu.Lock()
				defer mu.Unlock()
				at[name] = addr
				return pooler.State{}, nil
			},
		}
		ctx, cancel := context.WithCancel(b.Context())
		defer cancel()
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range o.Watch(ctx) {
				continue
			}
		}()
		b.wait(2 * time.Second)
		b.remove(record.FleetKey(demo, "pgb-2"))
		b.enlist("pgb-3", "write", 3)
		b.enlist("pgb-3", "write", 33)
		mu.Lock()
		clear(at)
		mu.Unlock()
		b.wait(3 * time.Second)
		mu.Lock()
		if len(at) != 2 || at["pgb-3"] != listens(33) || !at["pgb-1"].IsValid() {
			t.Errorf("asked %v", at)
		}
		mu.Unlock()
		cancel()
		<-done
	})
}

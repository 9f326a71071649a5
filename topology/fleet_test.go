package topology

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/memory"
	"github.com/pgconvoy/pgconvoy/envoyconf"
	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/pooler"
)

func TestValidateFleet(t *testing.T) {
	f := &Fleet{}
	refuses(t, f.Validate(), "Fleet.Path", "Fleet.Store")
	refuses(t, (&Fleet{Path: demo, Store: memory.New()}).Validate())
	for name, err := range map[string]error{
		"Fleet.Path":   f.Drain(t.Context(), "pgb-1"),
		"Fleet.Drain":  (&Fleet{Path: demo, Store: memory.New()}).Drain(t.Context(), ""),
		"Fleet.Admit":  (&Fleet{Path: demo, Store: memory.New()}).Admit(t.Context(), "a/b"),
		"Fleet.Remove": (&Fleet{Path: demo, Store: memory.New()}).Remove(t.Context(), ".."),
		"Fleet.Accept": (&Fleet{Path: demo, Store: memory.New()}).Accept(t.Context(), patroni.Epoch{SystemID: "7", Timeline: 1}),
	} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// drained says what the agent of a pooler says while it drains.
func (b *bench) drained(name string, empty bool) {
	b.Helper()
	b.put(record.PoolerKey(demo, name), record.Encode(&record.Pooler{
		Abilities: []string{record.AbilityDrain}, State: string(Routed), Service: "write", Draining: true, Empty: empty,
	}))
}

// roster is the entry of a pooler; false: there is none.
func (b *bench) roster(name string) (record.Fleet, bool) {
	b.Helper()
	e := b.entry(record.FleetKey(demo, name))
	if e.Value == nil {
		return record.Fleet{}, false
	}
	f, err := record.Decode[record.Fleet](e)
	if err != nil {
		b.Fatal(err)
	}
	return f, true
}

func wantRefused(t *testing.T, err error, part string) {
	t.Helper()
	if r, ok := errors.AsType[*RefusedError](err); !ok || !strings.Contains(err.Error(), part) || r.Refusals[0].Remedy == "" {
		t.Errorf("error %v, want a refusal with %q and what to do", err, part)
	}
}

// missing drains for a moment and checks that it lacks just this.
func (f *Fleet) lacks(b *bench, name, part string) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 10*time.Second)
	defer cancel()
	err := f.Drain(ctx, name)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), part) || !strings.Contains(err.Error(), "admit it") {
		b.Errorf("error %v, want %q", err, part)
	}
	if e, _ := b.roster(name); !e.Draining {
		b.Errorf("%s is not marked any more", name)
	}
}

func TestFleetDrain(t *testing.T) {
	inBubble(t, func(b *bench) {
		f := &Fleet{Path: demo, Store: b.store}
		r := &fakeRouter{}
		b.control(r)
		wantRefused(t, f.Drain(b.Context(), "pgb-2"), "no pooler pgb-2 in the fleet of "+demo)
		b.enlist("pgb-2", "write", 2)
		b.enlist("pgb-4", "read", 4)
		wantRefused(t, f.Drain(b.Context(), "pgb-2"), "the last of the write service")
		if e, _ := b.roster("pgb-2"); e.Draining {
			t.Error("it was marked")
		}
		b.enlist("pgb-1", "write", 1)
		wantRefused(t, f.Drain(b.Context(), "pgb-2"), "the last of the write service") // it has no agent
		b.register("pgb-1", Failed)
		wantRefused(t, f.Drain(b.Context(), "pgb-2"), "the last of the write service")
		b.register("pgb-1", Held)
		version := func() string {
			r.mu.Lock()
			defer r.mu.Unlock()
			return envoyconf.Version(r.set["write"])
		}
		old := version()
		speak := func(envoys ...envoyconf.EnvoyStatus) {
			r.report(envoys...)
			synctest.Wait()
		}
		applied := func(node, version string) envoyconf.EnvoyStatus {
			return envoyconf.EnvoyStatus{Node: node, Applied: map[string]string{"write": version}}
		}
		speak(applied("e1", old), applied("e2", old))

		f.lacks(b, "pgb-2", "Envoy e1 of control plane cp-1 has not applied it, Envoy e2 of control plane cp-1 has not applied it, its agent does not answer")
		if e, _ := b.roster("pgb-2"); e.Service != "write" || e.Address != listens(2) {
			t.Errorf("the entry is %+v", e)
		}
		wantRefused(t, f.Drain(b.Context(), "pgb-1"), "the last of the write service")
		rejects := applied("e2", old)
		rejects.Rejected = map[string]string{"write": "bad port"}
		speak(applied("e1", version()), rejects)
		b.register("pgb-2", Routed)
		f.lacks(b, "pgb-2", "but Envoy e2 of control plane cp-1 has not applied it (bad port), its agent cannot drain: use a newer one:")
		b.put(record.PoolerKey(demo, "pgb-2"), record.Encode(&record.Pooler{Abilities: []string{record.AbilityDrain}}))
		f.lacks(b, "pgb-2", ", its agent has not begun to drain:")
		b.drained("pgb-2", false)
		speak(applied("e1", version()), applied("e2", version()))
		f.lacks(b, "pgb-2", "but pgb-2 still has clients:")
		b.store.SetDown(errors.New("no quorum"))
		if err := f.Drain(b.Context(), "pgb-2"); err == nil || !strings.Contains(err.Error(), "no quorum") {
			t.Errorf("with the store down: %v", err)
		}
		b.store.SetDown(nil)
		b.put(record.ControlPlaneKey(demo, "cp-old"), []byte(`{"v":1,"services":{"write":{"version":"x"}}}`)) // it knows no draining
		b.drained("pgb-2", true)
		f.lacks(b, "pgb-2", "but control plane cp-old has not taken it out:")
		b.remove(record.ControlPlaneKey(demo, "cp-old"))
		if err := f.Drain(b.Context(), "pgb-2"); err != nil {
			t.Error(err)
		}
		if err := f.Drain(b.Context(), "pgb-2"); err != nil {
			t.Errorf("again: %v", err)
		}
		b.register("pgb-1", Failed)
		wantRefused(t, f.Drain(b.Context(), "pgb-2"), "the last of the write service")
		if e, _ := b.roster("pgb-2"); !e.Draining {
			t.Error("the mark from before is gone")
		}
		b.register("pgb-1", Routed)
		for range 2 {
			if err := f.Admit(b.Context(), "pgb-2"); err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		if e, _ := b.roster("pgb-2"); e.Draining || e.Address != listens(2) || version() != old {
			t.Errorf("the entry is %+v, the version %s", e, version())
		}
	})
}

// An agent that has counted its clients before the last Envoy knew is not believed.
func TestFleetDrainWaitsForTheCount(t *testing.T) {
	inBubble(t, func(b *bench) {
		f := &Fleet{Path: demo, Store: b.store}
		b.enlist("pgb-1", "write", 1)
		b.register("pgb-1", Routed)
		b.enlist("pgb-2", "write", 2)
		done := make(chan error, 1)
		go func() { done <- f.Drain(b.Context(), "pgb-2") }()
		synctest.Wait()
		b.drained("pgb-2", true)
		b.wait(look)
		b.drained("pgb-2", false) // the count of a second later
		b.wait(time.Minute)
		select {
		case err := <-done:
			t.Fatalf("it has a client: %v", err)
		default:
		}
		b.drained("pgb-2", true)
		began := time.Now()
		if err := <-done; err != nil || time.Since(began) < 2*look {
			t.Errorf("%v after %s", err, time.Since(began))
		}
	})
}

// With an agent of flesh and blood: it counts its clients, and keeps the mark when it starts anew.
func TestFleetDrainWithAgents(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.routed("pgb-1")
		p := &fakePooler{state: pooler.State{Clients: 3, Target: pooler.Target{Hosts: []netip.AddrPort{addr1}, Mark: epoch1.String()}}}
		stop := b.run(b.agent("pgb-2", p))
		b.wait(time.Second)
		hand := &Fleet{Path: demo, Store: b.store}
		hand.lacks(b, "pgb-2", "but pgb-2 still has clients:")
		again := b.agent("pgb-2", p)
		stop()
		b.run(again)
		b.wait(time.Minute)
		if e, _ := b.roster("pgb-2"); !e.Draining || e.Address != again.Listen {
			t.Errorf("the entry is %+v", e)
		}
		hand.lacks(b, "pgb-2", "but pgb-2 still has clients:")
		done := make(chan error, 1)
		go func() { done <- hand.Drain(b.Context(), "pgb-2") }()
		b.wait(time.Minute)
		p.do(func(p *fakePooler) { p.state.Clients = 0 })
		if err := <-done; err != nil {
			t.Error(err)
		}
		v := (&Observer{Path: demo, Store: b.store, Leaders: b.leads}).View(b.Context())
		if p := v.Poolers[1]; !p.Draining || !p.Empty || !strings.Contains(v.String(), "drained") {
			t.Errorf("%+v in\n%s", p, v)
		}
	})
}

func TestFleetDrainIsUndone(t *testing.T) {
	for name, undo := range map[string]func(f *Fleet, b *bench){
		"admitted": func(f *Fleet, b *bench) {
			if err := f.Admit(b.Context(), "pgb-2"); err != nil {
				b.Error(err)
			}
		},
		"removed": func(f *Fleet, b *bench) {
			if err := f.Remove(b.Context(), "pgb-2"); err != nil {
				b.Error(err)
			}
		},
	} {
		inBubble(t, func(b *bench) {
			f := &Fleet{Path: demo, Store: b.store}
			b.enlist("pgb-1", "write", 1)
			b.register("pgb-1", Routed)
			b.enlist("pgb-2", "write", 2)
			done := make(chan error, 1)
			go func() { done <- f.Drain(b.Context(), "pgb-2") }()
			b.wait(time.Minute)
			undo(f, b)
			if err := <-done; err == nil || !strings.Contains(err.Error(), "somebody "+name+" it") {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}

// Two at the same moment: whatever the order of their steps, one pooler goes on.
func TestFleetDrainsOfAll(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.enlist("pgb-1", "write", 1)
		b.enlist("pgb-2", "write", 2)
		b.register("pgb-1", Routed)
		b.enlistDraining("pgb-1", "write", 1) // it came between this one's look and its mark
		f := &Fleet{Path: demo, Store: &blindOnce{Store: b.store, entry: record.Fleet{Service: "write", Address: listens(1)}}}
		wantRefused(t, f.Drain(b.Context(), "pgb-2"), "the last of the write service")
		if e, _ := b.roster("pgb-2"); e.Draining {
			t.Error("both drain")
		}
	})
}

// blindOnce shows at the first look that pgb-1 is not draining.
type blindOnce struct {
	dcs.Store
	entry record.Fleet
	looks atomic.Int32
}

func (s *blindOnce) Get(ctx context.Context, dir string) (dcs.Snapshot, error) {
	snap, err := s.Store.Get(ctx, dir)
	if s.looks.Add(1) == 1 {
		snap = snap.With(dcs.Entry{Key: record.FleetKey(demo, "pgb-1"), Value: record.Encode(&s.entry)})
	}
	return snap, err
}

// A mark that cannot be taken back is no refusal: something was changed.
func TestFleetDrainCannotBeUndone(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.enlist("pgb-1", "write", 1)
		b.register("pgb-1", Routed)
		b.enlist("pgb-2", "write", 2)
		b.enlistDraining("pgb-1", "write", 1)
		blind := &blindOnce{Store: b.store, entry: record.Fleet{Service: "write", Address: listens(1)}}
		f := &Fleet{Path: demo, Store: &onePut{Store: blind}}
		err := f.Drain(b.Context(), "pgb-2")
		if _, refused := errors.AsType[*RefusedError](err); refused || !errors.Is(err, errDead) || !strings.Contains(err.Error(), "admit it") {
			t.Errorf("error %v", err)
		}
	})
}

// onePut takes a single write.
type onePut struct {
	dcs.Store
	puts atomic.Int32
}

func (s *onePut) Put(ctx context.Context, key string, value []byte, prev dcs.Version) (dcs.Version, error) {
	if s.puts.Add(1) > 1 {
		return dcs.Version{}, errDead
	}
	return s.Store.Put(ctx, key, value, prev)
}

func TestFleetRemove(t *testing.T) {
	inBubble(t, func(b *bench) {
		f := &Fleet{Path: demo, Store: b.store}
		b.enlist("pgb-1", "write", 1)
		b.register("pgb-1", Routed)
		b.put(record.HistoryKey(demo, "pgb-1"), record.Encode(&record.History{Moves: []record.Move{{To: "routed"}}}))
		wantRefused(t, f.Remove(b.Context(), "pgb-1"), "pgb-1 has a live agent")
		b.enlistDraining("pgb-1", "write", 1) // its agent would only come back without the mark
		wantRefused(t, f.Remove(b.Context(), "pgb-1"), "pgb-1 has a live agent")
		b.remove(record.PoolerKey(demo, "pgb-1"))
		for range 2 {
			if err := f.Remove(b.Context(), "pgb-1"); err != nil {
				t.Error(err)
			}
			if _, there := b.roster("pgb-1"); there || b.entry(record.HistoryKey(demo, "pgb-1")).Value != nil {
				t.Error("it is still there")
			}
		}
		b.enlist("pgb-2", "write", 2) // its agent is gone
		if err := f.Remove(b.Context(), "pgb-2"); err != nil {
			t.Error(err)
		}
	})
}

func TestFleetAccept(t *testing.T) {
	inBubble(t, func(b *bench) {
		f := &Fleet{Path: demo, Store: b.store}
		for _, e := range []patroni.Epoch{epoch2, epoch2, epoch1} {
			if err := f.Accept(b.Context(), e); err != nil {
				t.Error(err)
			}
			s, err := b.store.Get(b.Context(), record.Dir(demo))
			if err != nil {
				t.Fatal(err)
			}
			if a, ok, err := record.AcceptedOf(s, demo); !ok || err != nil || a.Epoch != e || a.By == "" || a.Since.IsZero() {
				t.Errorf("accepted %+v, %v, %v", a, ok, err)
			}
		}
	})
}

// A write that others overtake, or whose answer is lost, is decided by what the store has then.
func TestFleetGoesByEvidence(t *testing.T) {
	for _, sent := range []bool{true, false} {
		for _, lost := range []error{dcs.ErrConflict, dcs.ErrUnknown} {
			if sent && errors.Is(lost, dcs.ErrConflict) {
				continue // a conflict was not carried out
			}
			inBubble(t, func(b *bench) {
				b.enlist("pgb-1", "write", 1)
				b.enlist("pgb-2", "write", 2)
				b.register("pgb-2", Routed)
				s := &lossy{Store: b.store, sent: sent, err: lost}
				f := &Fleet{Path: demo, Store: s}
				ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
				defer cancel()
				if wrote, err := f.mark(ctx, "pgb-1", true); err != nil || !wrote {
					t.Errorf("wrote: %v, %v", wrote, err)
				}
				if e, _ := b.roster("pgb-1"); !e.Draining || e.Address != listens(1) {
					t.Errorf("the entry is %+v", e)
				}
				want := int32(2)
				if sent {
					want = 1 // it was seen to have arrived
				}
				if n := s.puts.Load(); n != want {
					t.Errorf("sent %d times, want %d (%v, arrived: %v)", n, want, lost, sent)
				}
			})
		}
	}
	inBubble(t, func(b *bench) { // for ever
		b.enlist("pgb-1", "write", 1)
		b.enlist("pgb-2", "write", 2)
		b.register("pgb-2", Routed)
		f := &Fleet{Path: demo, Store: &lossy{Store: b.store, err: dcs.ErrUnknown, times: 1 << 30}}
		ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
		defer cancel()
		err := f.Drain(ctx, "pgb-1")
		if !errors.Is(err, dcs.ErrUnknown) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
	})
}

// lossy loses the answers of its first writes.
type lossy struct {
	dcs.Store
	sent  bool // they are carried out all the same
	err   error
	times int32 // 0: once
	puts  atomic.Int32
}

func (s *lossy) Put(ctx context.Context, key string, value []byte, prev dcs.Version) (dcs.Version, error) {
	if s.puts.Add(1) > max(1, s.times) {
		return s.Store.Put(ctx, key, value, prev)
	}
	if s.sent {
		if _, err := s.Store.Put(ctx, key, value, prev); err != nil {
			return dcs.Version{}, err
		}
	}
	return dcs.Version{}, fmt.Errorf("put %s: %w", key, s.err)
}

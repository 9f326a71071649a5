package topology

import (
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/record"
)

func (b *bench) drain(name string, draining bool) {
	b.Helper()
	key := record.FleetKey(demo, name)
	f, err := record.Decode[record.Fleet](b.entry(key))
	if err != nil {
		b.Fatal(err)
	}
	f.Draining = draining
	b.put(key, record.Encode(&f))
}

// A draining pooler says so, and when its last client has gone; it is routed and held as ever.
func TestDrain(t *testing.T) {
	inBubble(t, func(b *bench) {
		a, p := b.routed("pgb-1")
		b.wait(2 * time.Second)
		check := func(when string, draining, empty bool) {
			t.Helper()
			r, _ := b.registration("pgb-1")
			if r.Draining != draining || r.Empty != empty || a.State().Draining != draining {
				t.Errorf("%s: draining %v, empty %v, in the state %v", when, r.Draining, r.Empty, a.State().Draining)
			}
		}
		check("without clients", false, false)
		b.drain("pgb-1", true)
		check("before the next look", true, false)
		b.wait(look)
		check("without clients", true, true)
		p.do(func(p *fakePooler) { p.state.Clients = 2 })
		b.wait(look)
		check("with clients", true, false)
		b.state(a, Routed)

		b.leads.set(dead(b.leads.lead))
		b.state(a, Held)
		b.leads.set(proven("n2", addr2, epoch2))
		b.state(a, Routed)
		p.wants(t, "hold", toN2)
		check("moved", true, false)

		p.do(func(p *fakePooler) { p.state.Clients = 0 })
		b.wait(look)
		check("its clients have gone", true, true)
		b.drain("pgb-1", false)
		check("taken back", false, false)
		b.wait(look)
		check("taken back", false, false)
	})
}

// What an operator asked of a pooler outlives its agent, and a changed address or service does not.
func TestEnlistKeepsDraining(t *testing.T) {
	inBubble(t, func(b *bench) {
		key := record.FleetKey(demo, "pgb-1")
		b.put(key, record.Encode(&record.Fleet{Service: "read", Address: addr3, Draining: true}))
		a, _ := b.routed("pgb-1")
		f, err := record.Decode[record.Fleet](b.entry(key))
		if err != nil || f.Service != "write" || f.Address != a.Listen || !f.Draining || !a.State().Draining {
			t.Errorf("in the roster as %+v, %v", f, err)
		}
		if r, _ := b.registration("pgb-1"); len(r.Abilities) != 2 || r.Abilities[1] != record.AbilityDrain {
			t.Errorf("abilities %q", r.Abilities)
		}
	})
}

// An entry that is right stays untouched.
func TestEnlistWritesOnce(t *testing.T) {
	inBubble(t, func(b *bench) {
		a := b.agent("pgb-1", &fakePooler{})
		stop := b.run(a)
		b.wait(time.Second)
		stop()
		b.drain("pgb-1", true)
		key := record.FleetKey(demo, "pgb-1")
		before := b.entry(key)
		b.run(b.agent("pgb-1", &fakePooler{}))
		b.wait(time.Minute)
		if after := b.entry(key); after.Version != before.Version {
			t.Errorf("written again: %s, before %s", after.Value, before.Value)
		}
	})
}

// An entry of a newer program stays as it is, and the agent registers all the same.
func TestEnlistLeavesWhatItCannotRead(t *testing.T) {
	inBubble(t, func(b *bench) {
		key, value := record.FleetKey(demo, "pgb-1"), `{"v":9,"draining":"slowly"}`
		b.put(key, []byte(value))
		a, _ := b.routed("pgb-1")
		b.wait(time.Minute)
		if e := b.entry(key); string(e.Value) != value {
			t.Errorf("overwritten by %s", e.Value)
		}
		if r, ok := b.registration("pgb-1"); !ok || r.Address != a.Listen {
			t.Errorf("registered %v as %+v", ok, r)
		}
	})
}

package topology

import (
	"strings"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/record"
)

// Two agents with one name both say so, write rarely, and are content when one of them has gone.
func TestRivals(t *testing.T) {
	for name, first := range map[string]bool{"the first one stops": true, "the second one stops": false} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bench) {
				p := func() *fakePooler {
					p := &fakePooler{}
					p.state.Target = target(epoch1, addr1)
					return p
				}
				b.leads.set(proven("n1", addr1, epoch1))
				one, two := b.agent("pgb-1", p()), b.agent("pgb-1", p())
				stops := map[bool]func(){true: b.run(one)}
				b.wait(time.Minute)
				if st := b.state(one, Routed); st.Err != nil {
					t.Errorf("alone: %v", st.Err)
				}
				stops[false] = b.run(two)
				versions := map[uint64]bool{}
				for range 600 {
					b.wait(time.Second)
					if e := b.entry(record.PoolerKey(demo, "pgb-1")); e.Value != nil {
						versions[e.Version.Modified] = true
					}
				}
				for who, a := range map[string]*Agent{"first": one, "second": two} {
					if st := b.state(a, Routed); st.Err == nil || !strings.Contains(st.Err.Error(), "another agent named pgb-1 registers; stop one of them") {
						t.Errorf("the %s one says %v", who, st.Err)
					}
				}
				if r, _ := b.registration("pgb-1"); r.Error == "" {
					t.Error("the registration does not say it")
				}
				if n := len(versions); n > 150 {
					t.Errorf("registered %d times in 10 minutes", n)
				}
				stops[first]()
				b.wait(rivalFor + 10*time.Second)
				left := map[bool]*Agent{true: two, false: one}[first]
				if st := b.state(left, Routed); st.Err != nil {
					t.Errorf("alone again: %v", st.Err)
				}
				if r, ok := b.registration("pgb-1"); !ok || r.Error != "" {
					t.Errorf("registered %v as %+v", ok, r)
				}
			})
		})
	}
}

// What a run that was killed has left is no rival.
func TestPredecessorIsNoRival(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.put(record.PoolerKey(demo, "pgb-1"), record.Encode(&record.Pooler{Instance: "of the killed run"}))
		a, _ := b.routed("pgb-1")
		for range 100 {
			b.wait(100 * time.Millisecond)
			if st := a.State(); st.Err != nil {
				t.Fatal(st.Err)
			}
		}
		if r, _ := b.registration("pgb-1"); r.Instance == "" || r.Instance == "of the killed run" {
			t.Errorf("registered as %q", r.Instance)
		}
	})
}

package topology

import (
	"context"
	"iter"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
)

var (
	rebuilt = patroni.Epoch{SystemID: "7", Timeline: 1, Created: 5}
	foreign = patroni.Epoch{SystemID: "8", Timeline: 9, Created: 900}
)

func TestAcceptedIsFollowed(t *testing.T) {
	for name, e := range map[string]patroni.Epoch{"rebuilt store": rebuilt, "another database": foreign} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bench) {
				a, p := b.routed("pgb-1")
				b.wait(time.Second)
				b.leads.set(proven("n2", addr2, e))
				p.wants(t, "hold")
				b.wait(30 * time.Second)
				st := b.state(a, Held)
				for _, part := range []string{"n2", e.String(), "not followed", "accepts its epoch"} {
					if st.Err == nil || !strings.Contains(st.Err.Error(), part) {
						t.Errorf("%q is not in: %v", part, st.Err)
					}
				}
				wrong := e
				wrong.Created++
				b.put(record.AcceptedKey(demo), record.Encode(&record.Accepted{Epoch: wrong}))
				b.wait(time.Second)
				b.state(a, Held)
				p.wants(t)
				b.put(record.AcceptedKey(demo), record.Encode(&record.Accepted{Epoch: e}))
				if st = b.state(a, Routed); st.Err != nil || st.Epoch != e {
					t.Errorf("state %+v", st)
				}
				p.wants(t, "route "+target(e, addr2).String())
				b.wait(time.Minute)
				p.wants(t)
			})
		})
	}
}

// The word is for one leadership: it does not make anything older good.
func TestAcceptedOlderIsNotFollowed(t *testing.T) {
	inBubble(t, func(b *bench) {
		p := &fakePooler{}
		p.state.Target = target(epoch3, addr3)
		a := b.agent("pgb-1", p)
		b.leads.set(proven("n3", addr3, epoch3))
		b.run(a)
		b.put(record.AcceptedKey(demo), record.Encode(&record.Accepted{Epoch: epoch1}))
		b.leads.set(proven("n1", addr1, epoch1))
		b.wait(2 * time.Minute)
		b.state(a, Failed)
		p.wants(t, "hold", "route "+target(epoch3).String())
	})
}

func TestAcceptedForReads(t *testing.T) {
	inBubble(t, func(b *bench) {
		p := &fakePooler{}
		p.state.Target = target(epoch1, addr2)
		a := b.agent("pgb-4", p)
		a.Service = Read
		b.leads.set(proven("n1", addr1, foreign))
		b.run(a)
		b.wait(time.Minute)
		p.wants(t)
		b.put(record.AcceptedKey(demo), record.Encode(&record.Accepted{Epoch: foreign}))
		b.wait(time.Second)
		b.state(a, Routed)
		p.wants(t, "hold", "route "+target(foreign, addr1).String())
	})
}

// homeProber answers what a test sets, once per Probe.
type homeProber struct {
	mu    sync.Mutex
	proof patroni.Proof
	asked []netip.AddrPort
	mute  bool

	to    netip.AddrPort // of the last answer
	given patroni.Proof
}

func (f *homeProber) last() (netip.AddrPort, patroni.Proof) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.to, f.given
}

func (f *homeProber) Probe(ctx context.Context, addr netip.AddrPort) iter.Seq[patroni.Proof] {
	return func(yield func(patroni.Proof) bool) {
		f.mu.Lock()
		f.asked = append(f.asked, addr)
		p, mute := f.proof, f.mute
		p.At = time.Now()
		if !mute {
			f.to, f.given = addr, p
		}
		f.mu.Unlock()
		if !mute && !yield(p) {
			return
		}
		<-ctx.Done()
	}
}

func (f *homeProber) set(p patroni.Proof, mute bool) (asked []netip.AddrPort) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.proof, f.mute = p, mute
	asked, f.asked = f.asked, nil
	return asked
}

// A primary of a rebuilt store is followed once the old primary is seen to follow it.
func TestRebuiltStoreWhoseOldPrimaryFollows(t *testing.T) {
	inBubble(t, func(b *bench) {
		prober := &homeProber{mute: true}
		p := &fakePooler{}
		p.state.Target = target(epoch1, addr1)
		a := b.agent("pgb-1", p)
		a.Prober = prober
		b.leads.set(proven("n1", addr1, epoch1))
		b.run(a)
		b.wait(time.Minute)
		if asked := prober.set(patroni.Proof{}, true); len(asked) > 0 {
			t.Errorf("asked %v while all is well", asked)
		}
		b.leads.set(proven("n2", addr2, rebuilt))
		p.wants(t, "hold")
		for _, answer := range []patroni.Proof{
			{Err: errDead}, {Writable: true, SystemID: "7", Timeline: 1}, {SystemID: "7"}, {SystemID: "7", Timeline: 2}, {SystemID: "8", Timeline: 1},
		} {
			prober.set(answer, false)
			b.wait(5 * time.Second)
			b.state(a, Held)
			p.wants(t)
			asked := prober.set(answer, true)
			if n := len(asked); n < 2 || n > 6 || asked[0] != addr1 {
				t.Errorf("asked %v in 5 s", asked)
			}
			b.wait(3 * time.Second) // it does not answer at all: asked again in the end
		}
		prober.set(patroni.Proof{SystemID: "7", Timeline: 1}, false)
		b.wait(3 * time.Second)
		if st := b.state(a, Routed); st.Epoch != rebuilt || st.Err != nil {
			t.Errorf("state %+v", st)
		}
		p.wants(t, "route "+target(rebuilt, addr2).String())
	})
}

// What is promised of a rebuilt store is what can come: nobody asks an old primary without a Prober, or one not known.
func TestRemedyOfARebuiltStore(t *testing.T) {
	s := inState(Held)
	s.lead = leadAt(5, "n2", addr2, rebuilt)
	for _, c := range []struct {
		asks bool
		home netip.AddrPort
		want bool
	}{{true, addr1, true}, {false, addr1, false}, {true, netip.AddrPort{}, false}} {
		s.home = c.home
		if got := remedy(s, c.asks); strings.Contains(got, "seen to follow") != c.want || !strings.Contains(got, "accepts") {
			t.Errorf("asks %v at %s: %s", c.asks, c.home, got)
		}
	}
}

// The old primary's word is of no use for another database.
func TestForeignIsNotAskedFor(t *testing.T) {
	inBubble(t, func(b *bench) {
		prober := &homeProber{proof: patroni.Proof{SystemID: "8", Timeline: 9}}
		p := &fakePooler{}
		p.state.Target = target(epoch1, addr1)
		a := b.agent("pgb-1", p)
		a.Prober = prober
		b.leads.set(proven("n1", addr1, epoch1))
		b.run(a)
		b.leads.set(proven("n2", addr2, foreign))
		b.wait(30 * time.Second)
		b.state(a, Held)
		if asked := prober.set(patroni.Proof{}, true); len(asked) > 0 {
			t.Errorf("asked %v", asked)
		}
		p.wants(t, "hold")
	})
}

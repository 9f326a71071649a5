package topology

import (
	"context"
	"errors"
	"iter"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/pooler"
)

func target(e patroni.Epoch, hosts ...netip.AddrPort) pooler.Target {
	return pooler.Target{Hosts: hosts, Mark: e.String()}
}

func TestFirstProofRoutes(t *testing.T) {
	inBubble(t, func(b *bench) {
		p := &fakePooler{state: pooler.State{Target: target(patroni.Epoch{}, addr3)}} // nobody's word for it
		a := b.agent("pgb-1", p)
		b.run(a)
		b.state(a, Failed)
		elected := dead(proven("n1", addr1, epoch1))
		elected.Proof = patroni.Proof{}
		b.leads.set(elected)
		b.state(a, Failed)
		p.wants(t)

		b.leads.set(proven("n1", addr1, epoch1))
		st := b.state(a, Routed)
		p.wants(t, "route "+target(epoch1, addr1).String())
		if st.Epoch != epoch1 || st.Err != nil || st.Reason == "" {
			t.Errorf("state %+v", st)
		}
		b.wait(time.Minute)
		p.wants(t)

		r, ok := b.registration("pgb-1")
		if !ok || r.State != "routed" || r.Epoch != epoch1 || r.Target[0] != addr1 || r.Abilities[0] != record.AbilityHold {
			t.Errorf("registered as %+v", r)
		}
		f, err := record.Decode[record.Fleet](b.entry(record.FleetKey(demo, "pgb-1")))
		if err != nil || f.Address != a.Listen || f.Service != "write" {
			t.Errorf("in the roster as %+v, %v", f, err)
		}
	})
}

func TestStartOnAProvenTarget(t *testing.T) {
	inBubble(t, func(b *bench) {
		a, p := b.routed("pgb-1") // which sees that nothing is asked of it
		if st := a.State(); st.Epoch != epoch1 {
			t.Errorf("epoch %s", st.Epoch)
		}
		// A restarted pooler that lost its file's target, or was paused by hand, is put right.
		p.do(func(p *fakePooler) { p.state.Held = true })
		b.wait(look)
		p.wants(t, "route "+target(epoch1, addr1).String())
		p.do(func(p *fakePooler) { p.state.Target = pooler.Target{} })
		b.wait(look)
		p.wants(t, "route "+target(epoch1, addr1).String())
		b.state(a, Routed)
	})
}

// A route that was cut off between the file and the running pooler is not a way back.
func TestStartRemembersTheFile(t *testing.T) {
	inBubble(t, func(b *bench) {
		p := &fakePooler{state: pooler.State{Target: pooler.Target{Hosts: []netip.AddrPort{addr1}}, File: target(epoch2, addr2)}}
		a := b.agent("pgb-1", p)
		b.leads.set(proven("n1", addr1, epoch1))
		b.run(a)
		b.wait(time.Second)
		if st := b.state(a, Failed); st.Err == nil || !strings.Contains(st.Err.Error(), "older") {
			t.Errorf("reported as %v", st.Err)
		}
		p.wants(t)
		b.leads.set(proven("n2", addr2, epoch2))
		b.state(a, Routed)
		p.wants(t, "route "+target(epoch2, addr2).String())
	})
}

func TestLostPrimary(t *testing.T) {
	inBubble(t, func(b *bench) {
		a, p := b.routed("pgb-1")
		b.wait(time.Second)
		began := time.Now()
		b.leads.set(dead(proven("n1", addr1, epoch1)))
		if b.state(a, Held); time.Since(began) > 0 {
			t.Errorf("held after %s", time.Since(began))
		}
		p.wants(t, "hold")
		if r, _ := b.registration("pgb-1"); r.State != "held" || !r.Drained || r.Operation != "" {
			t.Errorf("registered as %+v", r)
		}
		b.wait(3 * time.Second)
		b.leads.set(proven("n2", addr2, epoch2))
		b.state(a, Routed)
		p.wants(t, "route "+target(epoch2, addr2).String())
		b.wait(2 * time.Minute)
		b.state(a, Routed)
		p.wants(t)
	})
}

func TestSamePrimaryComesBack(t *testing.T) {
	inBubble(t, func(b *bench) {
		a, p := b.routed("pgb-1")
		b.wait(time.Second)
		old := proven("n1", addr1, epoch1)
		b.wait(time.Second)
		lost := dead(old)
		b.leads.set(lost)
		b.state(a, Held)
		p.wants(t, "hold")

		before := b.leads.count()
		b.wait(time.Millisecond)
		b.leads.set(old) // a proof from before the doubt
		b.wait(0)
		if b.leads.count() == before {
			t.Error("no fresh proof was asked for")
		}
		b.state(a, Routed) // by the fresh one, which began after the doubt
		p.wants(t, "route "+target(epoch1, addr1).String())

		b.wait(time.Second)
		b.leads.set(dead(old))
		b.state(a, Held)
		p.wants(t, "hold")
		b.wait(time.Second)
		b.leads.set(proven("n1", addr1, epoch1))
		b.state(a, Routed)
		p.wants(t, "route "+target(epoch1, addr1).String())
	})
}

// slowProof is a source whose fresh proofs take their time; the first watch is plain.
type slowProof struct {
	*fakeLeaders
	takes time.Duration
}

func (s *slowProof) Watch(ctx context.Context) iter.Seq2[patroni.Leadership, error] {
	if s.count() == 0 {
		return s.fakeLeaders.Watch(ctx)
	}
	return func(yield func(patroni.Leadership, error) bool) {
		for l := range s.fakeLeaders.Watch(ctx) {
			time.Sleep(s.takes)
			yield(l, context.Cause(ctx))
			return
		}
	}
}

// A fresh proof that arrives after something newer was seen is forgotten.
func TestLateFreshProof(t *testing.T) {
	inBubble(t, func(b *bench) {
		old := proven("n1", addr1, epoch1)
		b.wait(time.Second)
		b.leads.set(old)
		p := &fakePooler{state: pooler.State{Target: target(epoch1, addr1)}}
		a := b.agent("pgb-1", p)
		a.Leaders = &slowProof{b.leads, time.Second}
		b.run(a)
		b.leads.set(dead(old))
		b.state(a, Held)
		b.wait(time.Millisecond)
		old.At = time.Time{}.Add(time.Hour)
		b.leads.set(old)
		b.wait(500 * time.Millisecond) // a fresh watch is under way
		b.leads.set(proven("n2", addr2, epoch2))
		b.state(a, Routed)
		p.wants(t, "hold", "route "+target(epoch2, addr2).String())
		b.wait(time.Minute)
		b.state(a, Routed)
		p.wants(t)
	})
}

func TestDeadline(t *testing.T) {
	inBubble(t, func(b *bench) {
		a, p := b.routed("pgb-1")
		b.wait(time.Second)
		lost := dead(proven("n1", addr1, epoch1))
		b.leads.set(lost)
		b.state(a, Held)
		p.wants(t, "hold")
		b.wait(time.Minute - time.Millisecond)
		b.state(a, Held)
		p.wants(t)
		b.wait(time.Millisecond)
		st := b.state(a, Failed)
		p.wants(t, "route "+target(epoch1).String())
		if len(st.Target.Hosts) > 0 || st.Epoch != epoch1 {
			t.Errorf("failed on %v at %s", st.Target, st.Epoch)
		}
		b.wait(5 * time.Minute) // no new hold before a proof
		b.leads.set(dead(proven("n2", addr2, epoch1)))
		b.state(a, Failed)
		p.wants(t)

		b.leads.set(proven("n1", addr1, epoch1))
		b.state(a, Routed)
		p.wants(t, "route "+target(epoch1, addr1).String())
		b.wait(time.Second)
		b.leads.set(lost)
		b.state(a, Held) // and after a proof holds are free again
	})
}

func TestDeadlineThenNewPrimary(t *testing.T) {
	inBubble(t, func(b *bench) {
		a, p := b.routed("pgb-1")
		a.Patience = 0
		b.wait(time.Second)
		b.leads.set(dead(proven("n1", addr1, epoch1)))
		b.wait(2 * time.Minute)
		b.state(a, Failed)
		p.done()
		b.leads.set(proven("n2", addr2, epoch2))
		b.state(a, Routed)
		p.wants(t, "route "+target(epoch2, addr2).String())
	})
}

func TestOrphanedPause(t *testing.T) {
	paused := func(b *bench) (*Agent, *fakePooler) {
		p := &fakePooler{state: pooler.State{Target: target(epoch1, addr1), Held: true}}
		a := b.agent("pgb-1", p)
		a.Patience = 10 * time.Second
		return a, p
	}
	t.Run("resumes on proof", func(t *testing.T) {
		inBubble(t, func(b *bench) {
			a, p := paused(b)
			b.leads.set(dead(proven("n1", addr1, epoch1)))
			b.run(a)
			b.state(a, Held)
			b.wait(9 * time.Second)
			b.state(a, Held)
			p.wants(t) // it is held already
			b.leads.set(proven("n1", addr1, epoch1))
			b.state(a, Routed)
			p.wants(t, "route "+target(epoch1, addr1).String())
		})
	})
	t.Run("refuses at a fresh deadline", func(t *testing.T) {
		inBubble(t, func(b *bench) {
			a, p := paused(b)
			b.run(a)
			b.wait(9 * time.Second)
			b.state(a, Held)
			b.wait(time.Second)
			b.state(a, Failed)
			p.wants(t, "route "+target(epoch1).String())
		})
	})
	t.Run("of a read pooler", func(t *testing.T) {
		inBubble(t, func(b *bench) {
			a, p := paused(b)
			a.Service = Read
			b.run(a)
			b.wait(9 * time.Second)
			b.state(a, Held)
			b.wait(time.Second)
			b.state(a, Failed)
			p.wants(t, "route "+target(epoch1).String())
		})
	})
}

func TestStoreDown(t *testing.T) {
	inBubble(t, func(b *bench) {
		a, p := b.routed("pgb-1")
		if _, ok := b.registration("pgb-1"); !ok {
			t.Fatal("not registered")
		}
		b.store.SetDown(errors.New("no quorum"))
		stale := proven("n1", addr1, epoch1)
		stale.Stale = errors.New("no quorum")
		b.leads.set(stale)
		b.wait(10 * time.Minute) // much longer than any lease
		b.state(a, Routed)
		p.wants(t)
		b.store.SetDown(nil)
		b.wait(2 * time.Second)
		if r, ok := b.registration("pgb-1"); !ok || r.State != "routed" {
			t.Errorf("after the outage registered: %v, %+v", ok, r)
		}
	})
}

// A store that forgot everything gets the roster entry again.
func TestStoreWiped(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.routed("pgb-1")
		b.remove(record.PoolerKey(demo, "pgb-1"))
		b.remove(record.FleetKey(demo, "pgb-1"))
		b.store.SetDown(errors.New("no quorum"))
		b.wait(time.Minute)
		b.store.SetDown(nil)
		b.wait(2 * time.Second)
		if b.entry(record.FleetKey(demo, "pgb-1")).Value == nil {
			t.Error("not in the roster again")
		}
		if _, ok := b.registration("pgb-1"); !ok {
			t.Error("not registered again")
		}
	})
}

// An agent that was killed leaves its registration until its lease ends; the next run takes it over.
func TestPredecessorsRegistration(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.put(record.PoolerKey(demo, "pgb-1"), record.Encode(&record.Pooler{State: "held"}))
		b.routed("pgb-1")
		b.wait(time.Second)
		if r, _ := b.registration("pgb-1"); r.State != "routed" {
			t.Errorf("registered as %+v", r)
		}
	})
}

func TestStopLeavesThePooler(t *testing.T) {
	inBubble(t, func(b *bench) {
		p := &fakePooler{state: pooler.State{Target: target(epoch1, addr1)}, busy: make(chan struct{})}
		a := b.agent("pgb-1", p)
		b.leads.set(proven("n1", addr1, epoch1))
		stop := b.run(a)
		b.wait(time.Second)
		b.leads.set(dead(proven("n1", addr1, epoch1)))
		b.state(a, Held)
		stop() // with a Hold under way
		p.wants(t, "hold")
		if _, ok := b.registration("pgb-1"); ok {
			t.Error("the registration is left")
		}
		if b.entry(record.FleetKey(demo, "pgb-1")).Value == nil {
			t.Error("the roster entry is gone")
		}
	})
}

// Run returns after all that it started, also what does not heed its context.
func TestRunWaits(t *testing.T) {
	inBubble(t, func(b *bench) {
		p := &fakePooler{state: pooler.State{Target: target(epoch1, addr1)}, deaf: 5 * time.Second}
		a := b.agent("pgb-1", p)
		b.leads.set(proven("n1", addr1, epoch1))
		stop := b.run(a)
		b.wait(time.Second)
		b.leads.set(dead(proven("n1", addr1, epoch1)))
		b.state(a, Held)
		stop()
		p.do(func(p *fakePooler) {
			if p.holds > 0 {
				t.Errorf("Run returned with %d Holds under way", p.holds)
			}
		})
		b.wait(p.deaf)
	})
}

func TestOlderIsNeverRouted(t *testing.T) {
	for name, lying := range map[string]func() patroni.Leadership{
		"older timeline":      func() patroni.Leadership { return proven("n2", addr2, epoch1) },
		"older, same address": func() patroni.Leadership { return proven("n3", addr3, epoch1) },
		"rebuilt store": func() patroni.Leadership {
			return proven("n2", addr2, patroni.Epoch{SystemID: "7", Timeline: 3, Created: 9})
		},
		"another database": func() patroni.Leadership {
			return proven("n2", addr2, patroni.Epoch{SystemID: "8", Timeline: 9, Created: 900})
		},
		"foreign, same addess": func() patroni.Leadership {
			return proven("n3", addr3, patroni.Epoch{SystemID: "8", Timeline: 9, Created: 900})
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bench) {
				p := &fakePooler{state: pooler.State{Target: target(epoch3, addr3)}}
				a := b.agent("pgb-1", p)
				b.leads.set(proven("n3", addr3, epoch3))
				b.run(a)
				b.state(a, Routed)
				b.wait(time.Second)
				b.leads.set(lying())
				st := b.state(a, Held)
				p.wants(t, "hold")
				if st.Err == nil || !strings.Contains(st.Err.Error(), "not followed") {
					t.Errorf("reported as %v", st.Err)
				}
				if r, _ := b.registration("pgb-1"); r.Error == "" {
					t.Error("not reported in the registration")
				}
				for range 200 { // also after the deadline, and however often it is said
					b.wait(time.Second)
					b.leads.set(lying())
				}
				b.state(a, Failed)
				p.wants(t, "route "+target(epoch3).String())
				b.leads.set(proven("n3", addr3, epoch3))
				b.state(a, Routed)
				p.wants(t, "route "+target(epoch3, addr3).String())
			})
		})
	}
}

func TestSecondRunIsRefused(t *testing.T) {
	inBubble(t, func(b *bench) {
		a, _ := b.routed("pgb-1")
		if err := a.Run(b.Context()); err == nil || !strings.Contains(err.Error(), "already running") {
			t.Errorf("the second Run returned %v", err)
		}
	})
}

func TestWatchThatEnds(t *testing.T) {
	refused := errors.New("permission denied")
	inBubble(t, func(b *bench) {
		a := b.agent("pgb-1", &fakePooler{})
		done := make(chan error, 1)
		go func() { done <- a.Run(b.Context()) }()
		b.wait(time.Second)
		b.leads.endWith(refused)
		if err := <-done; !errors.Is(err, refused) || !strings.Contains(err.Error(), "pgb-1") {
			t.Errorf("Run returned %v", err)
		}
	})
}

func TestPoolerAwayAtStart(t *testing.T) {
	inBubble(t, func(b *bench) {
		p := &fakePooler{stateErr: errDead, state: pooler.State{Target: target(epoch1, addr1)}}
		a := b.agent("pgb-1", p)
		b.leads.set(proven("n1", addr1, epoch1))
		b.run(a)
		if st := b.state(a, Starting); !errors.Is(st.Err, errDead) {
			t.Errorf("error %v", st.Err)
		}
		b.wait(time.Minute)
		if r, ok := b.registration("pgb-1"); !ok || r.State != "starting" || r.Error == "" {
			t.Errorf("registered %v as %+v", ok, r)
		}
		p.do(func(p *fakePooler) { p.stateErr = nil })
		b.wait(2 * time.Second)
		if st := b.state(a, Routed); st.Err != nil {
			t.Errorf("error %v", st.Err)
		}
		p.do(func(p *fakePooler) { p.stateErr = errDead })
		b.wait(2 * time.Second)
		if st := b.state(a, Routed); !errors.Is(st.Err, errDead) {
			t.Errorf("error %v", st.Err)
		}
	})
}

func TestStopWhilePoolerIsAway(t *testing.T) {
	inBubble(t, func(b *bench) {
		stop := b.run(b.agent("pgb-1", &fakePooler{stateErr: errDead}))
		b.wait(time.Second)
		stop()
		synctest.Wait()
	})
}

// One acquisition of the leader key has one holder: it is followed to its new address.
func TestHolderChangesItsAddress(t *testing.T) {
	inBubble(t, func(b *bench) {
		a, p := b.routed("pgb-1")
		b.wait(time.Second)
		b.leads.set(proven("n1", addr3, epoch1))
		if st := b.state(a, Routed); st.Err != nil || st.Epoch != epoch1 {
			t.Errorf("state %+v", st)
		}
		p.wants(t, "route "+target(epoch1, addr3).String())
		b.wait(time.Minute)
		p.wants(t)
		b.leads.set(dead(b.leads.lead))
		b.state(a, Held)
		b.leads.set(proven("n1", addr1, epoch1))
		b.state(a, Routed)
		p.wants(t, "hold", toN1)
	})
}

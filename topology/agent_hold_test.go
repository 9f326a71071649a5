package topology

import (
	"slices"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/pooler"
)

var (
	toN1  = "route " + target(epoch1, addr1).String()
	toN2  = "route " + target(epoch2, addr2).String()
	toNil = "route " + target(epoch1).String()
)

const limit = 30 * time.Second

func TestOperationHolds(t *testing.T) {
	inBubble(t, func(b *bench) {
		a, p := b.routed("pgb-1")
		p.do(func(p *fakePooler) { p.busy = make(chan struct{}) })
		b.operation("op", record.Prepare, limit)
		b.state(a, Routed)
		b.operation("op", record.Hold, limit)
		b.state(a, Held)
		p.wants(t, "hold")
		if r, _ := b.registration("pgb-1"); r.State != "held" || r.Drained || r.Operation != "op" {
			t.Errorf("while it drains registered as %+v", r)
		}
		b.wait(3 * time.Second)
		close(p.busy)
		if r, _ := b.registration("pgb-1"); !r.Drained || r.Operation != "op" {
			t.Errorf("drained registered as %+v", r)
		}
		b.operation("op", record.Switch, limit)
		b.wait(time.Second)
		b.leads.set(proven("n1", addr1, epoch1)) // it still serves: no reason to resume
		b.wait(time.Second)
		b.state(a, Held)
		p.wants(t)
		b.leads.set(proven("n2", addr2, epoch2))
		b.state(a, Routed)
		p.wants(t, toN2)
		b.remove(record.OperationKey(demo))
		b.wait(time.Minute)
		p.wants(t)
	})
}

// The end of an operation alone never resumes: it takes a proof that began after it.
func TestOperationEndsBeforeTheSwitch(t *testing.T) {
	for name, end := range map[string]func(b *bench){
		"called off": func(b *bench) { b.operation("op", record.Release, limit) },
		"vanished":   func(b *bench) { b.remove(record.OperationKey(demo)) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bench) {
				a, p := b.routed("pgb-1")
				slow := b.leads.lead
				b.operation("op", record.Hold, limit)
				p.wants(t, "hold")
				b.wait(time.Second)
				watches := b.leads.count()
				// The source goes on with its old proof, and a fresh watch has none for a while.
				lost := dead(slow)
				b.leads.set(lost)
				end(b)
				b.wait(time.Second)
				b.state(a, Held)
				p.wants(t)
				b.leads.set(slow)
				b.wait(time.Second)
				b.state(a, Routed)
				p.wants(t, toN1)
				if b.leads.count() == watches {
					t.Error("the old proof was believed")
				}
			})
		})
	}
}

func TestReleaseOnAFreshProof(t *testing.T) {
	inBubble(t, func(b *bench) {
		a, p := b.routed("pgb-1")
		b.operation("op", record.Hold, limit)
		p.wants(t, "hold")
		b.wait(time.Second)
		watches := b.leads.count()
		b.operation("op", record.Release, limit)
		b.wait(10 * time.Millisecond)
		if b.leads.count() != watches+1 {
			t.Errorf("%d fresh watches", b.leads.count()-watches)
		}
		b.wait(time.Second)
		b.state(a, Routed)
		p.wants(t, toN1)
	})
}

// After the point of no return Patroni may be at work although nobody owns the operation any more.
func TestOperationVanishesInTheSwitch(t *testing.T) {
	inBubble(t, func(b *bench) {
		a, p := b.routed("pgb-1")
		b.operation("op", record.Hold, limit)
		b.wait(time.Second)
		b.operation("op", record.Switch, limit)
		b.wait(time.Second)
		b.remove(record.OperationKey(demo))
		p.wants(t, "hold")
		for range 27 {
			b.wait(time.Second)
			b.leads.set(proven("n1", addr1, epoch1))
			b.state(a, Held)
		}
		b.wait(1500 * time.Millisecond) // its time is over
		b.leads.set(proven("n1", addr1, epoch1))
		b.state(a, Routed)
		p.wants(t, toN1)
	})
}

// One operation takes the place of another between two looks.
func TestOperationIsReplacedInTheSwitch(t *testing.T) {
	inBubble(t, func(b *bench) {
		a, p := b.routed("pgb-1")
		b.operation("op", record.Switch, limit)
		b.wait(time.Second)
		b.operation("other", record.Prepare, limit)
		b.wait(20 * time.Second)
		b.leads.set(proven("n1", addr1, epoch1))
		b.state(a, Held)
		p.wants(t, "hold")
		b.wait(10 * time.Second)
		b.state(a, Routed)
		p.wants(t, toN1)
	})
}

func TestOperationLastsTooLong(t *testing.T) {
	inBubble(t, func(b *bench) {
		a, p := b.routed("pgb-1")
		b.operation("op", record.Switch, limit)
		b.wait(limit - time.Millisecond)
		b.state(a, Held)
		p.wants(t, "hold")
		b.leads.set(dead(b.leads.lead)) // and nothing is proven either
		b.wait(time.Millisecond)
		b.state(a, Held)
		b.wait(grace)
		b.state(a, Failed)
		p.wants(t, toNil)
		b.wait(time.Minute)
		b.leads.set(proven("n1", addr1, epoch1)) // the operation is still there, and its time is over
		b.state(a, Routed)
		p.wants(t, toN1)
		b.wait(time.Minute)
		b.state(a, Routed)
		p.wants(t)
	})
}

// A pooler that comes to a leadership late, and finds an operation of it, holds with a deadline of its own.
func TestOperationIsThereAlready(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.operation("op", record.Hold, limit)
		p := &fakePooler{}
		a := b.agent("pgb-1", p)
		b.run(a)
		b.state(a, Failed)
		b.leads.set(proven("n1", addr1, epoch1))
		b.state(a, Held)
		p.wants(t, toN1, "hold")
		b.wait(limit - time.Second)
		b.state(a, Held)
	})
}

func TestHookAsks(t *testing.T) {
	stop := func(id string) []byte {
		return record.Encode(&record.BeforeStop{ID: id, Created: epoch1.Created, Limit: limit})
	}
	inBubble(t, func(b *bench) {
		a, p := b.routed("pgb-1")
		key := record.BeforeStopKey(demo, "n1")
		for _, id := range []string{"first", "second"} { // two restarts by hand under one leadership
			b.put(key, stop(id))
			b.state(a, Held)
			p.wants(t, "hold")
			if r, _ := b.registration("pgb-1"); r.Operation != "stop of n1/"+id {
				t.Errorf("holds for %q", r.Operation)
			}
			b.remove(key)
			b.wait(afterStop - time.Millisecond) // the stop is about to come: the primary is not believed at once
			b.leads.set(proven("n1", addr1, epoch1))
			b.state(a, Held)
			b.wait(2 * time.Second)
			b.state(a, Routed)
			p.wants(t, toN1)
			b.wait(2 * time.Minute)
		}
		b.put(record.BeforeStopKey(demo, "n2"), stop("other")) // not our primary
		b.state(a, Routed)
		p.wants(t)
	})
}

func TestHookHoldsForTheOperation(t *testing.T) {
	inBubble(t, func(b *bench) {
		a, p := b.routed("pgb-1")
		o := record.Operation{ID: "op", Phase: record.Switch, Epoch: epoch1, Limit: limit, Hook: true}
		b.put(record.OperationKey(demo), record.Encode(&o))
		b.wait(time.Second)
		b.state(a, Routed)
		key := record.BeforeStopKey(demo, "n1")
		b.put(key, record.Encode(&record.BeforeStop{ID: "x", Limit: limit}))
		b.state(a, Held)
		b.remove(key)
		b.wait(5 * time.Second)
		b.leads.set(proven("n1", addr1, epoch1))
		b.state(a, Held) // the operation keeps what the hook began
		p.wants(t, "hold")
		if r, _ := b.registration("pgb-1"); r.Operation != "op" {
			t.Errorf("holds for %q", r.Operation)
		}
		b.leads.set(proven("n2", addr2, epoch2))
		b.state(a, Routed)
		p.wants(t, toN2)
	})
}

func TestHoldThatNeverDrains(t *testing.T) {
	inBubble(t, func(b *bench) {
		a, p := b.routed("pgb-1")
		p.do(func(p *fakePooler) { p.busy = make(chan struct{}) })
		b.wait(time.Second)
		b.leads.set(dead(b.leads.lead))
		b.wait(5 * time.Second)
		if r, _ := b.registration("pgb-1"); r.State != "held" || r.Drained {
			t.Errorf("registered as %+v", r)
		}
		began := time.Now()
		b.leads.set(proven("n2", addr2, epoch2))
		if b.state(a, Routed); time.Since(began) > 0 {
			t.Errorf("routed after %s", time.Since(began))
		}
		p.wants(t, "hold", toN2)
	})
}

// A Pooler whose Hold does not heed its context cannot keep the pooler from its primary, nor is its late end taken for
// that of the next Hold.
func TestDeafHold(t *testing.T) {
	inBubble(t, func(b *bench) {
		a, p := b.routed("pgb-1")
		p.do(func(p *fakePooler) { p.deaf = 3 * time.Second })
		b.wait(time.Second)
		b.leads.set(dead(b.leads.lead))
		b.state(a, Held)
		b.leads.set(proven("n2", addr2, epoch2))
		b.wait(time.Second)
		b.state(a, Routed)
		p.do(func(p *fakePooler) { p.deaf, p.busy = 0, make(chan struct{}) })
		b.leads.set(dead(b.leads.lead))
		b.wait(10 * time.Second)
		if st := b.state(a, Held); st.Drained {
			t.Error("said to be drained by an older Hold")
		}
		p.wants(t, "hold", toN2, "hold")
	})
}

func TestHoldError(t *testing.T) {
	inBubble(t, func(b *bench) {
		a, p := b.routed("pgb-1")
		p.do(func(p *fakePooler) { p.holdErr = errDead })
		b.wait(time.Second)
		b.leads.set(dead(b.leads.lead))
		b.wait(2 * time.Second)
		if st := b.state(a, Held); st.Drained {
			t.Error("said to be drained")
		}
		if n := len(p.done()); n < 5 || n > 25 {
			t.Errorf("%d attempts in 2 s", n)
		}
		p.do(func(p *fakePooler) { p.holdErr = nil })
		b.wait(time.Second)
		if st := b.state(a, Held); !st.Drained || st.Err != nil {
			t.Errorf("after it was mended: %+v", st)
		}
		p.wants(t, "hold")
	})
}

func TestRouteError(t *testing.T) {
	inBubble(t, func(b *bench) {
		a, p := b.routed("pgb-1")
		p.do(func(p *fakePooler) { p.routeErr = errDead })
		b.wait(time.Second)
		b.leads.set(dead(b.leads.lead))
		b.state(a, Held)
		b.leads.set(proven("n2", addr2, epoch2))
		b.wait(2 * time.Second)
		st := b.state(a, Held) // and held all the time
		if st.Err == nil || st.Epoch != epoch1 {
			t.Errorf("state %+v", st)
		}
		calls := p.done()
		if n := len(calls); n < 5 || n > 60 || calls[0] != "hold" || slices.Contains(calls[1:], "hold") {
			t.Errorf("%d calls: %q", n, calls)
		}
		p.do(func(p *fakePooler) { p.routeErr = nil })
		b.wait(time.Second)
		if st := b.state(a, Routed); st.Err != nil || st.Epoch != epoch2 {
			t.Errorf("state %+v", st)
		}
	})
}

// A Route that got clients to the proven target and failed in what comes after is not answered with a new hold.
func TestRouteErrorAfterTheResume(t *testing.T) {
	inBubble(t, func(b *bench) {
		a, p := b.routed("pgb-1")
		p.do(func(p *fakePooler) { p.routeErr, p.dirty = pooler.ErrLeftover, true })
		b.wait(time.Second)
		check := func() {
			t.Helper()
			for _, call := range p.done() { // never back to the old one either
				if call != toN2 {
					t.Errorf("the pooler was asked %q", call)
				}
			}
			if p.do(func(*fakePooler) {}); p.state.Held {
				t.Error("clients of the proven target are held")
			}
		}
		b.leads.set(proven("n2", addr2, epoch2))
		b.wait(5 * time.Second)
		check()
		p.do(func(p *fakePooler) { p.routeErr = nil })
		b.wait(time.Second)
		b.state(a, Routed)
		check()

		p.do(func(p *fakePooler) { p.routeErr = pooler.ErrLeftover })
		b.wait(time.Second)
		b.leads.set(dead(b.leads.lead))
		p.wants(t, "hold")
		b.leads.set(proven("n2", addr2, epoch2))
		b.wait(5 * time.Second)
		check()
	})
}

// A route that fails from the start leaves no client on what is over.
func TestRouteErrorHolds(t *testing.T) {
	inBubble(t, func(b *bench) {
		a, p := b.routed("pgb-1")
		p.do(func(p *fakePooler) { p.routeErr = errDead })
		b.wait(time.Second)
		b.leads.set(proven("n2", addr2, epoch2))
		b.state(a, Held)
		if calls := p.done(); len(calls) < 2 || calls[0] != toN2 || !slices.Equal(slices.DeleteFunc(calls, func(c string) bool { return c == toN2 }), []string{"hold"}) {
			t.Errorf("the pooler was asked %q", calls)
		}
		b.wait(2 * time.Minute) // refusing fails too
		b.state(a, Held)
		p.do(func(p *fakePooler) { p.routeErr = nil })
		b.wait(time.Second)
		b.state(a, Routed)
	})
}

func TestRefuseErrorDoesNotSpin(t *testing.T) {
	inBubble(t, func(b *bench) {
		a, p := b.routed("pgb-1")
		b.wait(time.Second)
		b.leads.set(dead(b.leads.lead))
		p.wants(t, "hold")
		p.do(func(p *fakePooler) { p.routeErr, p.stateErr = errDead, errDead })
		b.wait(time.Minute + 10*time.Second)
		b.state(a, Held)
		if n := len(p.done()); n < 10 || n > 300 {
			t.Errorf("%d attempts in 10 s", n)
		}
		p.do(func(p *fakePooler) { p.routeErr, p.stateErr = nil, nil })
		b.wait(time.Second)
		b.state(a, Failed)
	})
}

func TestPoolerRestartsWhileHeld(t *testing.T) {
	for name, busy := range map[string]chan struct{}{"drained": nil, "draining": make(chan struct{})} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bench) {
				a, p := b.routed("pgb-1")
				if busy != nil {
					busy = make(chan struct{})
				}
				p.do(func(p *fakePooler) { p.busy = busy })
				b.wait(time.Second)
				b.leads.set(dead(b.leads.lead))
				b.wait(2 * time.Second)
				p.wants(t, "hold")
				p.do(func(p *fakePooler) { p.state.Held, p.state.Drained, p.busy = false, false, nil })
				b.wait(look + 100*time.Millisecond)
				p.wants(t, "hold")
				if st := b.state(a, Held); !st.Drained {
					t.Error("not drained")
				}
				if p.do(func(p *fakePooler) {}); p.most > 1 {
					t.Errorf("%d Holds at one time", p.most)
				}
			})
		})
	}
}

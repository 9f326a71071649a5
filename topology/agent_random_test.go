package topology

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/pooler"
)

// judge is a Pooler that checks each Route against the laws.
type judge struct {
	*fakePooler
	b      *bench
	epoch  patroni.Epoch // of the last Route that succeeded
	home   netip.AddrPort
	agent  *Agent
	wrongs []string
}

func (j *judge) Route(ctx context.Context, to pooler.Target) error {
	err := j.fakePooler.Route(ctx, to)
	if len(to.Hosts) == 0 {
		return err
	}
	epoch, perr := patroni.ParseEpoch(to.Mark)
	j.b.leads.mu.Lock()
	lead, before, since := j.b.leads.lead, j.b.leads.before, j.b.leads.since
	j.b.leads.mu.Unlock()
	is := func(l patroni.Leadership) bool {
		return l.Phase == patroni.Writable && l.Addr == to.Hosts[0] && l.Epoch == epoch
	}
	proven := is(lead) || is(before) && time.Now().Equal(since)  // which may not have arrived yet
	again := j.agent.State().State == Routed && epoch == j.epoch // put right what somebody changed by hand
	refusing := !j.home.IsValid()
	j.do(func(*fakePooler) {
		if perr != nil {
			j.wrongs = append(j.wrongs, perr.Error())
		}
		if !again && !proven {
			j.wrongs = append(j.wrongs, fmt.Sprintf("routed to %s while %s at %s is %s", to, lead.Member, lead.Epoch, lead.Phase))
		}
		if o := epoch.Compare(j.epoch, to.Hosts[0] == j.home || refusing); o != patroni.Same && o != patroni.Newer {
			j.wrongs = append(j.wrongs, fmt.Sprintf("routed to %s, which is %s than %s at %s", to, o, j.epoch, j.home))
		}
		if err == nil {
			j.epoch, j.home = epoch, to.Hosts[0]
		}
	})
	return err
}

// Whatever happens, in whatever order: no route goes back or to what is not proven, no hold lasts for ever, and when all
// is well again the pooler is on the newest primary.
func TestAgentAtRandom(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inBubble(t, func(b *bench) { atRandom(b, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func atRandom(b *bench, rnd *rand.Rand) {
	addrs := []netip.AddrPort{addr1, addr2, addr3}
	newest, at := epoch1, 0 // the true leadership, and whose it is
	level := func(i int, e patroni.Epoch) patroni.Leadership { return proven(fmt.Sprintf("n%d", i+1), addrs[i], e) }
	p := &fakePooler{state: pooler.State{Target: target(epoch1, addr1)}}
	j := &judge{fakePooler: p, b: b, epoch: epoch1, home: addr1}
	a := b.agent("pgb-1", j)
	a.Patroni = b.client()
	j.agent = a
	b.leads.set(level(at, newest))
	b.run(a)

	down, faulty := false, false
	var heldSince time.Time
	try := func(f func()) { // what a bench does in the store needs it up
		if !down {
			f()
		}
	}
	id := 0
	for range 150 {
		switch rnd.IntN(16) {
		case 0:
			newest.Timeline++
			newest.Created += 10
			at = rnd.IntN(3)
			b.leads.set(level(at, newest))
		case 1, 2, 3:
			b.leads.set(level(at, newest))
		case 4, 5:
			b.leads.set(dead(level(at, newest)))
		case 6: // lies
			old := patroni.Epoch{SystemID: "7", Timeline: newest.Timeline - uint32(rnd.IntN(2)), Created: newest.Created - 1 - uint64(rnd.IntN(5))}
			b.leads.set(level((at+1)%3, old))
		case 7:
			l := dead(level((at+1)%3, newest))
			l.Proof = patroni.Proof{}
			b.leads.set(l)
		case 8:
			b.leads.set(patroni.Leadership{Phase: patroni.Vacant, Addr: addrs[at], Proof: patroni.Proof{At: time.Now(), Err: errDead}})
		case 9, 10:
			try(func() {
				if rnd.IntN(2) == 0 {
					id++
				}
				phases := []string{record.Prepare, record.Hold, record.Switch, record.Switch, record.Release, record.Done}
				o := record.Operation{
					ID: fmt.Sprint(id), Phase: phases[rnd.IntN(len(phases))], Epoch: newest, Limit: time.Duration(rnd.IntN(40)) * time.Second,
					Hook: rnd.IntN(2) == 0,
				}
				b.put(record.OperationKey(demo), record.Encode(&o))
			})
		case 11:
			try(func() {
				if b.entry(record.OperationKey(demo)).Value != nil {
					b.remove(record.OperationKey(demo))
				}
			})
		case 12:
			try(func() {
				key := record.BeforeStopKey(demo, fmt.Sprintf("n%d", at+1))
				if b.entry(key).Value != nil {
					b.remove(key)
					return
				}
				id++
				b.put(key, record.Encode(&record.BeforeStop{ID: fmt.Sprint(id), Limit: time.Duration(rnd.IntN(40)) * time.Second}))
			})
		case 13:
			faulty = rnd.IntN(2) == 0
			p.do(func(p *fakePooler) {
				p.routeErr, p.holdErr, p.stateErr, p.dirty, p.busy = nil, nil, nil, false, nil
				if !faulty {
					return
				}
				switch rnd.IntN(4) {
				case 0:
					p.routeErr, p.dirty = errDead, rnd.IntN(2) == 0
				case 1:
					p.holdErr = errDead
				case 2:
					p.stateErr = errDead
				case 3:
					p.busy = make(chan struct{})
				}
			})
		case 14:
			p.do(func(p *fakePooler) { p.state.Held, p.state.Drained = rnd.IntN(2) == 0, false })
		case 15:
			if down = !down; down {
				b.store.SetDown(errors.New("no quorum"))
			} else {
				b.store.SetDown(nil)
			}
		}
		for range 1 + rnd.IntN(19) {
			b.wait(time.Duration(rnd.IntN(1000)) * time.Millisecond)
		}
		st := a.State()
		if st.State != Held || faulty {
			heldSince = time.Time{}
		} else if heldSince.IsZero() || !heldSince.Equal(st.Since) && st.Since.After(heldSince) {
			heldSince = time.Now()
		} else if d := time.Since(heldSince); d > time.Minute+grace+time.Second {
			b.Fatalf("held for %s: %s", d, st.Reason)
		}
	}
	// All is well again.
	b.store.SetDown(nil)
	p.do(func(p *fakePooler) {
		p.routeErr, p.holdErr, p.stateErr, p.busy = nil, nil, nil, nil
	})
	b.wait(2 * time.Second)
	for _, key := range []string{record.OperationKey(demo), record.BeforeStopKey(demo, "n1"), record.BeforeStopKey(demo, "n2"), record.BeforeStopKey(demo, "n3")} {
		if b.entry(key).Value != nil {
			b.remove(key)
		}
	}
	b.wait(time.Minute) // the time of an operation that vanished in its switch is over
	b.leads.set(level(at, newest))
	b.wait(3 * time.Second)
	if st := b.state(a, Routed); st.Epoch != newest || st.Target.Hosts[0] != addrs[at] {
		b.Errorf("on %v at %s, want %s at %s", st.Target, st.Epoch, addrs[at], newest)
	}
	p.do(func(p *fakePooler) {
		if p.state.Held || p.state.Target.Hosts[0] != addrs[at] {
			b.Errorf("the pooler is on %+v", p.state)
		}
		for _, w := range j.wrongs {
			b.Error(w)
		}
	})
}

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
	b        *bench
	epoch    patroni.Epoch // of the last Route that succeeded
	home     netip.AddrPort
	agent    *Agent
	prober   *homeProber
	accepted [2]patroni.Epoch // the operator's word, and the one before
	wordAt   time.Time        // when it was given
	wrongs   []string
	backs    int // how often it went back to the primary of an outage
	words    int // how often it followed by somebody's word
}

func (j *judge) Route(ctx context.Context, to pooler.Target) error {
	err := j.fakePooler.Route(ctx, to)
	if len(to.Hosts) == 0 {
		return err
	}
	epoch, perr := patroni.ParseEpoch(to.Mark)
	j.b.leads.mu.Lock()
	levels := []patroni.Leadership{j.b.leads.lead}
	if time.Now().Equal(j.b.leads.since) { // which may not have arrived yet
		levels = append(levels, j.b.leads.before)
	}
	j.b.leads.mu.Unlock()
	st := j.agent.State()
	again := st.State == Routed && epoch == j.epoch // put right what somebody changed by hand
	order := epoch.Compare(j.epoch, to.Hosts[0] == j.home || !j.home.IsValid())
	if epoch == j.epoch && order == patroni.Older { // one acquisition has one holder, which changed its address
		order = patroni.Newer
	}
	byWord := (order == patroni.Rebuilt || order == patroni.Foreign) && j.word(epoch) || order == patroni.Rebuilt && j.follows(epoch, st)
	proven, goesBack := false, false
	for _, l := range levels {
		is := l.Phase == patroni.Writable && l.Addr == to.Hosts[0] && l.Epoch == epoch
		beaten := l.Stale != nil && l.Outage != nil && l.Outage.Ahead != "" && order == patroni.Same
		proven = proven || is && !beaten
		goesBack = goesBack || j.survives(l, to, epoch, st)
	}
	j.do(func(*fakePooler) {
		if perr != nil {
			j.wrongs = append(j.wrongs, perr.Error())
		}
		if !again && !proven && !goesBack {
			l := levels[0]
			j.wrongs = append(j.wrongs, fmt.Sprintf("routed to %s while %s at %s is %s, past the store %+v", to, l.Member, l.Epoch, l.Phase, l.Outage))
		}
		if order != patroni.Same && order != patroni.Newer && !byWord {
			j.wrongs = append(j.wrongs, fmt.Sprintf("routed to %s, which is %s than %s at %s", to, order, j.epoch, j.home))
		}
		if err == nil {
			if goesBack && !proven && !again {
				j.backs++
			}
			if byWord {
				j.words++
			}
			j.epoch, j.home = epoch, to.Hosts[0]
		}
	})
	return err
}

// survives: back onto the same epoch and address, and nothing else, on what was asked after the hold began.
func (j *judge) survives(l patroni.Leadership, to pooler.Target, epoch patroni.Epoch, st AgentState) bool {
	return l.Stale != nil && l.Outage != nil && l.Outage.Failsafe && l.Outage.Ahead == "" && l.Proof.Writable &&
		l.Addr == to.Hosts[0] && epoch == j.epoch && to.Hosts[0] == j.home &&
		l.Epoch.SystemID == epoch.SystemID && l.Epoch.Timeline == epoch.Timeline &&
		(st.State == Failed || st.State == Held && l.Outage.At.After(st.Since))
}

func (j *judge) word(e patroni.Epoch) bool {
	return e == j.accepted[0] || e == j.accepted[1] && time.Now().Equal(j.wordAt)
}

// follows: the old primary was last seen to follow the new one, after the hold began.
func (j *judge) follows(e patroni.Epoch, st AgentState) bool {
	addr, p := j.prober.last()
	return addr == j.home && p.Err == nil && !p.Writable && p.SystemID == e.SystemID && p.Timeline == e.Timeline &&
		(st.State == Failed || p.At.After(st.Since))
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
	prober := &homeProber{}
	j := &judge{fakePooler: p, b: b, epoch: epoch1, home: addr1, prober: prober}
	a := b.agent("pgb-1", j)
	a.Prober = prober
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
	accept := func(e patroni.Epoch) {
		j.accepted, j.wordAt = [2]patroni.Epoch{e, j.accepted[0]}, time.Now()
		b.put(record.AcceptedKey(demo), record.Encode(&record.Accepted{Epoch: e}))
	}
	draining := false
	for range 200 {
		switch rnd.IntN(24) {
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
		case 16, 17, 21, 22: // the store is silent for the source; who says what?
			l := level(at, newest)
			if rnd.IntN(2) == 0 {
				l.Phase = patroni.Promoting
			}
			if rnd.IntN(3) == 0 {
				l = dead(l)
			}
			if rnd.IntN(4) == 0 {
				l.Epoch.Created = uint64(rnd.IntN(500))
			}
			o := patroni.Outage{Failsafe: rnd.IntN(4) > 0}
			if rnd.IntN(3) == 0 {
				o.Ahead = "n9"
			}
			b.leads.set(past(l, o))
		case 18:
			id++
			f := patroni.Failover{Leader: fmt.Sprintf("n%d", 1+rnd.IntN(3)), Candidate: fmt.Sprintf("n%d", 1+rnd.IntN(3))}
			if rnd.IntN(3) == 0 {
				f.ScheduledAt = time.Now().Add(time.Duration(rnd.IntN(5000)) * time.Millisecond)
			}
			b.leads.set(request(level(at, newest), uint64(id), f))
		case 19:
			e := b.leads.lead.Epoch
			switch rnd.IntN(4) {
			case 0:
				e.Created--
			case 1:
				id++
				e = patroni.Epoch{SystemID: "8", Timeline: 1, Created: uint64(id)}
				b.leads.set(level((at+1)%3, e))
			}
			try(func() { accept(e) })
			prober.set(patroni.Proof{Writable: rnd.IntN(3) == 0, SystemID: "7", Timeline: newest.Timeline}, rnd.IntN(3) == 0)
		case 23: // the holder changes its address
			at = rnd.IntN(3)
			b.leads.set(level(at, newest))
		case 20:
			p.do(func(p *fakePooler) { p.state.Clients = rnd.IntN(2) })
			try(func() {
				if b.entry(record.FleetKey(demo, "pgb-1")).Value != nil {
					draining = !draining
					b.drain("pgb-1", draining)
				}
			})
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
	accept(newest)      // a word may have led it to another database
	b.leads.set(level(at, newest))
	b.wait(3 * time.Second)
	if st := b.state(a, Routed); newest.Compare(st.Epoch, true) != patroni.Same || st.Target.Hosts[0] != addrs[at] {
		b.Errorf("on %v at %s, want %s at %s", st.Target, st.Epoch, addrs[at], newest)
	}
	p.do(func(p *fakePooler) {
		if p.state.Held || p.state.Target.Hosts[0] != addrs[at] {
			b.Errorf("the pooler is on %+v", p.state)
		}
		for _, w := range j.wrongs {
			b.Error(w)
		}
		b.Logf("back to the primary of an outage %d times, by somebody's word %d times", j.backs, j.words)
	})
	if r, ok := b.registration("pgb-1"); !ok || r.Draining != draining || r.Empty && !draining {
		b.Errorf("draining %v, registered %v as %+v", draining, ok, r)
	}
}

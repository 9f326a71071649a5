package topology

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/patroni"
)

func TestReadService(t *testing.T) {
	replica := func(member string, fresh bool) patroni.Replica {
		addr := addr2
		if member == "n3" {
			addr = addr3
		}
		return patroni.Replica{Member: member, Addr: addr, Fresh: fresh, Proof: patroni.Proof{At: time.Now()}}
	}
	with := func(l patroni.Leadership, r ...patroni.Replica) patroni.Leadership {
		l.Replicas = r
		return l
	}
	inBubble(t, func(b *bench) {
		p := &fakePooler{}
		a := b.agent("pgb-4", p)
		a.Service = Read
		b.run(a)
		b.leads.set(with(dead(proven("n1", addr1, patroni.Epoch{})), replica("n2", true)))
		b.state(a, Failed) // fresh by whose word? nothing was ever proven
		p.wants(t)

		b.leads.set(with(proven("n1", addr1, epoch1), replica("n2", true), replica("n3", true)))
		b.state(a, Routed)
		p.wants(t, "route "+target(epoch1, addr2, addr3).String())
		b.wait(time.Minute)
		p.wants(t)

		b.leads.set(with(proven("n1", addr1, epoch1), replica("n2", false), replica("n3", true)))
		b.wait(time.Second)
		p.wants(t, "hold", "route "+target(epoch1, addr3).String()) // what reads from n2 has a moment to finish
		b.leads.set(with(proven("n1", addr1, epoch1), replica("n2", true), replica("n3", true)))
		b.wait(time.Second)
		p.wants(t, "route "+target(epoch1, addr2, addr3).String())

		// The primary is lost: replicas go on serving.
		b.leads.set(with(dead(proven("n1", addr1, epoch1)), replica("n2", true), replica("n3", true)))
		b.wait(time.Second)
		b.state(a, Routed)
		p.wants(t)

		b.leads.set(with(proven("n1", addr1, epoch1), replica("n2", false), replica("n3", false)))
		b.wait(time.Second)
		p.wants(t, "hold", "route "+target(epoch1, addr1).String())
		if st := a.State(); st.Reason != "no fresh replica: the primary" {
			t.Errorf("reason %q", st.Reason)
		}

		b.leads.set(dead(proven("n1", addr1, epoch1))) // nothing is proven: it stays
		b.wait(5 * time.Minute)
		b.state(a, Routed)
		p.wants(t)
		b.store.SetDown(errors.New("no quorum"))
		b.wait(5 * time.Minute)
		b.state(a, Routed)
		p.wants(t)
		b.store.SetDown(nil)

		b.leads.set(with(proven("n2", addr2, epoch2), replica("n3", true)))
		b.wait(time.Second)
		p.wants(t, "hold", "route "+target(epoch2, addr3).String())
		b.leads.set(with(proven("n1", addr1, epoch1), replica("n2", true))) // older
		b.wait(time.Minute)
		p.wants(t)

		if r, _ := b.registration("pgb-4"); r.Service != "read" || r.State != "routed" || r.Epoch != epoch2 {
			t.Errorf("registered as %+v", r)
		}
	})
}

func TestReadRouteError(t *testing.T) {
	inBubble(t, func(b *bench) {
		p := &fakePooler{routeErr: errDead}
		a := b.agent("pgb-4", p)
		a.Service = Read
		b.leads.set(proven("n1", addr1, epoch1))
		b.run(a)
		b.wait(2 * time.Second)
		if st := b.state(a, Failed); !errors.Is(st.Err, errDead) {
			t.Errorf("error %v", st.Err)
		}
		p.do(func(p *fakePooler) { p.routeErr, p.calls = nil, nil })
		b.wait(time.Second)
		b.state(a, Routed)
		p.wants(t, toN1)
	})
}

// An outage of the store changes nothing for readers, whatever is learned past it, and they follow no older epoch.
func TestReadInAnOutage(t *testing.T) {
	inBubble(t, func(b *bench) {
		p := &fakePooler{}
		a := b.agent("pgb-4", p)
		a.Service = Read
		reads := func(l patroni.Leadership, fresh bool) patroni.Leadership {
			l.Replicas = []patroni.Replica{{Member: "n3", Addr: addr3, Fresh: fresh, Proof: patroni.Proof{At: time.Now()}}}
			return l
		}
		up := reads(proven("n1", addr1, epoch2), true)
		b.leads.set(up)
		b.run(a)
		p.wants(t, "route "+target(epoch2, addr3).String())
		b.store.SetDown(errQuorum)
		for _, o := range []patroni.Outage{{}, {Failsafe: true}, {Ahead: "n2"}} {
			b.leads.set(past(up, o))
			b.wait(5 * time.Minute)
			b.leads.set(past(reads(dead(up), true), o))
			b.wait(5 * time.Minute)
			b.leads.set(past(reads(dead(up), false), o))
			b.wait(5 * time.Minute)
		}
		b.store.SetDown(nil)
		b.leads.set(reads(proven("n2", addr2, epoch1), true))
		b.wait(5 * time.Minute)
		b.leads.set(reads(proven("n2", addr2, epoch1), false))
		b.wait(5 * time.Minute)
		b.state(a, Routed)
		p.wants(t)
		b.leads.set(reads(proven("n2", addr2, epoch3), false))
		b.wait(time.Second)
		p.wants(t, "hold", "route "+target(epoch3, addr2).String())
	})
}

// After a start or a lost session the replicas are asked anew. Until the ones that serve were asked, they go on.
func TestReadBeforeTheReplicasAreAsked(t *testing.T) {
	inBubble(t, func(b *bench) {
		p := &fakePooler{}
		p.state.Target = target(epoch1, addr2, addr3)
		a := b.agent("pgb-4", p)
		a.Service = Read
		reads := func(asked ...patroni.Replica) patroni.Leadership {
			l := proven("n1", addr1, epoch1)
			l.Replicas = asked
			return l
		}
		there := func(member string, addr netip.AddrPort) patroni.Replica {
			return patroni.Replica{Member: member, Addr: addr, Fresh: true, Proof: patroni.Proof{At: time.Now()}}
		}
		unasked := func(member string, addr netip.AddrPort) patroni.Replica {
			return patroni.Replica{Member: member, Addr: addr}
		}
		b.leads.set(reads(unasked("n2", addr2), unasked("n3", addr3)))
		b.run(a)
		b.wait(time.Second)
		b.leads.set(reads(there("n2", addr2), unasked("n3", addr3)))
		b.wait(time.Second)
		b.state(a, Routed)
		p.wants(t)
		n3 := unasked("n3", addr3)
		n3.Proof = patroni.Proof{At: time.Now(), Err: errDead}
		b.leads.set(reads(there("n2", addr2), n3)) // asked, and does not answer
		b.wait(time.Second)
		p.wants(t, "hold", "route "+target(epoch1, addr2).String())
		b.leads.set(reads(unasked("n3", addr3))) // which serves nobody now
		b.wait(time.Second)
		p.wants(t, "hold", toN1)
	})
}

// What the pooler keeps of the epoch is that of the agent, also where no server changes: an agent that starts anew goes by
// it.
func TestReadKeepsTheMark(t *testing.T) {
	inBubble(t, func(b *bench) {
		p := &fakePooler{}
		p.state.Target = target(epoch1, addr3)
		a := b.agent("pgb-4", p)
		a.Service = Read
		reads := func(l patroni.Leadership) patroni.Leadership {
			l.Replicas = []patroni.Replica{{Member: "n3", Addr: addr3, Fresh: true, Proof: patroni.Proof{At: time.Now()}}}
			return l
		}
		b.leads.set(reads(proven("n1", addr1, epoch1)))
		b.run(a)
		b.wait(time.Minute)
		p.wants(t)
		p.do(func(p *fakePooler) { p.routeErr = errDead })
		b.leads.set(reads(proven("n2", addr2, epoch2)))
		b.wait(time.Second)
		if st := a.State(); st.State != Routed || st.Epoch != epoch1 || !errors.Is(st.Err, errDead) {
			t.Errorf("while the route fails: %+v", st)
		}
		p.do(func(p *fakePooler) { p.routeErr, p.calls = nil, nil })
		b.wait(time.Second)
		p.wants(t, "route "+target(epoch2, addr3).String())
		if st := b.state(a, Routed); st.Epoch != epoch2 || st.Err != nil {
			t.Errorf("state %+v", st)
		}
		b.wait(time.Minute)
		p.wants(t)
	})
}

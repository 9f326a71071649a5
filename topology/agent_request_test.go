package topology

import (
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
)

// request is a leadership with a request in Patroni's failover key.
func request(l patroni.Leadership, revision uint64, f patroni.Failover) patroni.Leadership {
	l.Failover, l.Requested = f, revision
	return l
}

// A switchover that somebody asked Patroni for is held for a second; a primary in a long checkpoint goes on serving.
func TestRequestHolds(t *testing.T) {
	inBubble(t, func(b *bench) {
		a, p := b.routed("pgb-1")
		b.wait(time.Second)
		l := request(b.leads.lead, 7, patroni.Failover{Leader: "n1"})
		b.leads.set(l)
		if st := b.state(a, Held); st.Operation != "request 7 to Patroni" {
			t.Errorf("holds for %q", st.Operation)
		}
		p.wants(t, "hold")
		b.wait(hearing - time.Millisecond)
		b.state(a, Held)
		b.wait(10 * time.Millisecond)
		b.state(a, Routed) // on a proof that began after its second
		p.wants(t, toN1)
		b.wait(time.Minute) // the checkpoint takes long
		b.state(a, Routed)
		p.wants(t)

		b.leads.set(request(proven("n1", addr1, epoch1), 8, patroni.Failover{Candidate: "n2"})) // another one
		b.state(a, Held)
		p.wants(t, "hold")
		b.wait(time.Second - time.Millisecond)
		b.leads.set(request(dead(b.leads.lead), 8, patroni.Failover{Candidate: "n2"})) // and this one comes
		b.wait(50 * time.Second)
		b.state(a, Held) // by the usual rule: much longer than a second
		p.wants(t)
		b.leads.set(request(proven("n2", addr2, epoch2), 8, patroni.Failover{Candidate: "n2"}))
		b.state(a, Routed)
		p.wants(t, toN2)
		b.wait(time.Minute)
		p.wants(t)
	})
}

func TestRequestIsTakenBack(t *testing.T) {
	inBubble(t, func(b *bench) {
		a, p := b.routed("pgb-1")
		b.leads.set(request(b.leads.lead, 7, patroni.Failover{Leader: "n1"}))
		p.wants(t, "hold")
		b.wait(100 * time.Millisecond)
		b.leads.set(request(b.leads.lead, 0, patroni.Failover{})) // Patroni could not do it
		b.wait(10 * time.Millisecond)
		b.state(a, Routed)
		p.wants(t, toN1)
	})
}

func TestRequestAtItsTime(t *testing.T) {
	inBubble(t, func(b *bench) {
		a, p := b.routed("pgb-1")
		due := time.Now().Add(time.Hour + 333*time.Millisecond)
		b.leads.set(request(b.leads.lead, 7, patroni.Failover{Leader: "n1", ScheduledAt: due}))
		b.wait(time.Until(due) - time.Nanosecond)
		b.state(a, Routed)
		p.wants(t)
		b.wait(time.Nanosecond)
		b.state(a, Held)
		p.wants(t, "hold")
		b.wait(2 * time.Second)
		b.state(a, Routed)
		p.wants(t, toN1)
	})
}

// Where the node has a hook it knows the moment better, and an operation of ours asks by itself.
func TestRequestIsLeftToOthers(t *testing.T) {
	for name, before := range map[string]func(b *bench){
		"hook":      func(b *bench) { b.put(record.HookKey(demo, "n1"), record.Encode(&record.Hook{})) },
		"operation": func(b *bench) { b.operation("op", record.Prepare, limit) },
		"paused":    func(b *bench) { b.leads.lead.Paused = true },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bench) {
				a, p := b.routed("pgb-1")
				before(b)
				b.leads.set(request(b.leads.lead, 7, patroni.Failover{Leader: "n1"}))
				b.wait(time.Minute)
				b.state(a, Routed)
				p.wants(t)
			})
		})
	}
}

// A request that comes when the primary is lost already does not keep its Patroni asleep, nor the primary that is back
// from its clients.
func TestRequestAfterALoss(t *testing.T) {
	inBubble(t, func(b *bench) {
		a, p := waker(b, "pgb-1")
		asked := patroni.Failover{Candidate: "n2"}
		b.leads.set(request(dead(b.leads.lead), 7, asked))
		if st := b.state(a, Held); st.Operation != "" {
			t.Errorf("holds for %q", st.Operation)
		}
		p.wants(t, "hold")
		b.wait(100 * time.Millisecond)
		if n := len(b.rest.sent()); n == 0 {
			t.Error("Patroni is not woken")
		}
		b.leads.set(proven("n1", addr1, epoch1)) // back, and the request has gone
		b.wait(10 * time.Millisecond)
		b.state(a, Routed)
		p.wants(t, toN1)
	})
}

// One that came before the loss is what stops the primary: the hold stays its own for its second.
func TestRequestThatStopsThePrimary(t *testing.T) {
	inBubble(t, func(b *bench) {
		a, _ := b.routed("pgb-1")
		asked := patroni.Failover{Leader: "n1"}
		b.leads.set(request(b.leads.lead, 7, asked))
		b.state(a, Held)
		b.wait(hearing / 2)
		b.leads.set(request(dead(b.leads.lead), 7, asked))
		if st := b.state(a, Held); st.Operation != "request 7 to Patroni" {
			t.Errorf("holds for %q", st.Operation)
		}
		b.wait(hearing)
		if st := b.state(a, Held); st.Operation != "" {
			t.Errorf("holds for %q after its time", st.Operation)
		}
	})
}

// A paused Patroni carries out a request that names the candidate.
func TestRequestInPause(t *testing.T) {
	inBubble(t, func(b *bench) {
		a, p := b.routed("pgb-1")
		b.leads.lead.Paused = true
		b.leads.set(request(b.leads.lead, 7, patroni.Failover{Leader: "n1", Candidate: "n2"}))
		b.state(a, Held)
		p.wants(t, "hold")
	})
}

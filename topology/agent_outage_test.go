package topology

import (
	"errors"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/patroni"
)

var errQuorum = errors.New("no quorum")

// past is a leadership while the store does not answer, with what the members say, asked now.
func past(l patroni.Leadership, o patroni.Outage) patroni.Leadership {
	o.At = time.Now()
	l.Stale, l.Outage = errQuorum, &o
	return l
}

// A store that is away for long moves nobody, also while the members are asked and say nothing.
func TestOutageAlone(t *testing.T) {
	inBubble(t, func(b *bench) {
		a, p := b.routed("pgb-1")
		l := proven("n1", addr1, epoch1)
		b.store.SetDown(errQuorum)
		for range 600 {
			b.leads.set(past(l, patroni.Outage{Reason: "nobody says anything"}))
			b.wait(time.Second)
		}
		b.state(a, Routed)
		p.wants(t)
	})
}

func TestOutageWithoutTheOldPrimary(t *testing.T) {
	inBubble(t, func(b *bench) {
		a, p := b.routed("pgb-1")
		l := proven("n1", addr1, epoch1)
		b.wait(time.Second)
		b.leads.set(past(l, patroni.Outage{Ahead: "n2", Reason: "n2 is writable on timeline 2"}))
		b.state(a, Held)
		p.wants(t, "hold")
		b.wait(30 * time.Second)
		b.state(a, Held) // what the old one says does not count
		p.wants(t)
		b.leads.set(proven("n2", addr2, epoch2)) // the store is back
		b.state(a, Routed)
		p.wants(t, toN2)
	})
}

// A proof that began after the doubt does not outweigh a member that is ahead, and does not make the pooler go to and fro.
func TestOutageAheadDoesNotFlap(t *testing.T) {
	inBubble(t, func(b *bench) {
		a, p := b.routed("pgb-1")
		for range 30 {
			b.leads.set(past(proven("n1", addr1, epoch1), patroni.Outage{Ahead: "n2"}))
			b.wait(time.Second)
		}
		b.state(a, Held)
		p.wants(t, "hold")
		b.wait(time.Minute)
		b.state(a, Failed)
		p.wants(t, toNil)
		b.leads.set(proven("n1", addr1, epoch1)) // the store says otherwise
		b.state(a, Routed)
		p.wants(t, toN1)
	})
}

func TestFailsafeKeepsThePrimary(t *testing.T) {
	for name, deadline := range map[string]bool{"while held": false, "after the deadline": true} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bench) {
				a, p := b.routed("pgb-1")
				l := proven("n1", addr1, epoch1)
				b.wait(time.Second)
				b.leads.set(past(l, patroni.Outage{Failsafe: true}))
				before := b.leads.lead
				b.wait(time.Second)
				b.leads.set(past(dead(l), patroni.Outage{}))
				b.state(a, Held)
				p.wants(t, "hold")
				if deadline {
					b.wait(2 * time.Minute)
					b.state(a, Failed)
					p.wants(t, toNil)
				}
				b.wait(time.Second)
				lost := l
				lost.Phase = patroni.Promoting // it serves again, and what is known of failsafe mode is from before
				b.leads.set(lost)
				b.wait(time.Second)
				lost.Stale, lost.Outage = errQuorum, before.Outage
				b.leads.set(lost)
				b.wait(time.Second)
				p.wants(t)

				lost.Epoch.Created = 70 // whatever the revision says, the mark stays
				b.leads.set(past(lost, patroni.Outage{Failsafe: true}))
				st := b.state(a, Routed)
				p.wants(t, toN1)
				if st.Epoch != epoch1 {
					t.Errorf("on epoch %s", st.Epoch)
				}
				b.wait(5 * time.Minute)
				b.state(a, Routed)
				p.wants(t)
			})
		})
	}
}

// Failsafe mode of anything else than what the pooler was on moves nobody.
func TestFailsafeElsewhere(t *testing.T) {
	for name, l := range map[string]func() patroni.Leadership{
		"another member":   func() patroni.Leadership { return proven("n2", addr2, epoch1) },
		"a later timeline": func() patroni.Leadership { return proven("n1", addr1, epoch2) },
		"another database": func() patroni.Leadership {
			return proven("n1", addr1, patroni.Epoch{SystemID: "8", Timeline: 1, Created: 100})
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bench) {
				a, p := b.routed("pgb-1")
				b.wait(time.Second)
				b.leads.set(past(dead(proven("n1", addr1, epoch1)), patroni.Outage{}))
				p.wants(t, "hold")
				for range 50 {
					other := l()
					other.Phase = patroni.Promoting // its store cannot prove it
					b.leads.set(past(other, patroni.Outage{Failsafe: true}))
					b.wait(time.Second)
				}
				b.state(a, Held)
				p.wants(t)
			})
		})
	}
}

// An operation that asked before the store fell silent keeps its hold as long as it may, and failsafe mode ends it then.
func TestFailsafeAfterAnOperation(t *testing.T) {
	inBubble(t, func(b *bench) {
		a, p := b.routed("pgb-1")
		l := proven("n1", addr1, epoch1)
		b.operation("op", "hold", limit)
		p.wants(t, "hold")
		b.store.SetDown(errQuorum)
		for range 29 {
			b.leads.set(past(l, patroni.Outage{Failsafe: true}))
			b.wait(time.Second)
			b.state(a, Held)
		}
		b.wait(1500 * time.Millisecond)
		b.leads.set(past(l, patroni.Outage{Failsafe: true}))
		b.state(a, Routed)
		p.wants(t, toN1)
		b.store.SetDown(nil)
	})
}

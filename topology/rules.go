package topology

import (
	"net/netip"
	"slices"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/mutant"
	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/pooler"
)

// PoolerState is what an agent's pooler is doing.
type PoolerState string

// The states of a pooler.
const (
	Starting PoolerState = "starting" // the agent has not read what the pooler has
	Routed   PoolerState = "routed"   // on the last proven target
	Held     PoolerState = "held"     // new transactions wait
	Failed   PoolerState = "failed"   // no proven target: clients are refused at once
)

// situation is everything that an agent decides on: levels only, never events.
type situation struct {
	now   time.Time
	state PoolerState
	route pooler.Target  // what the pooler is on; no hosts: refusing
	epoch patroni.Epoch  // the leadership that the route belongs to
	home  netip.AddrPort // where it was proven, also while clients are refused; not valid: not known
	lead  patroni.Leadership

	operation record.Operation             // zero: none
	stops     map[string]record.BeforeStop // hooks that run now, by member
	hooks     map[string]record.Hook       // members that have one
	accepted  patroni.Epoch                // an operator's word: follow this one; zero: none
	over      string                       // whose time is over: the id of a wish
	heard     uint64                       // the last request in Patroni's failover key whose time is over
	heeded    uint64                       // the last one that asked for a hold

	// Of the present hold; zero when not held.
	doubt    time.Time     // a proof that began after this moment ends the hold on the same primary
	lostAt   time.Time     // when the primary was last asked and did not answer as one
	former   patroni.Proof // what home answers, asked because another primary is proven that cannot be told from an older one
	deadline time.Time     // then clients are refused
	patience time.Duration // how long an unplanned hold may last
}

// addr is the primary that a write pooler is on.
func (s *situation) addr() netip.AddrPort {
	if len(s.route.Hosts) == 0 {
		return netip.AddrPort{}
	}
	return s.route.Hosts[0]
}

// order says how the proven leadership stands to the route's. One that only a person can judge is newer by an
// operator's word; one of a rebuilt store also by that of the old primary, which follows it. One acquisition of the
// leader key has one holder: proven at another address, it is where that holder has gone.
func (s *situation) order() patroni.Order {
	same := s.lead.Addr == s.home
	if s.proven() && s.home.IsValid() && !same && s.lead.Epoch == s.epoch {
		return patroni.Newer
	}
	if len(s.route.Hosts) == 0 || !s.home.IsValid() {
		// No address to stay on: what does not go back may be anywhere.
		same = same || s.lead.Epoch.Created >= s.epoch.Created
	}
	o := s.lead.Epoch.Compare(s.epoch, same)
	if s.accepts(o) || o == patroni.Rebuilt && s.follows() {
		return patroni.Newer
	}
	return o
}

// accepts: an operator said that a leadership which stands like this is to be followed.
func (s *situation) accepts(o patroni.Order) bool {
	return (o == patroni.Rebuilt || o == patroni.Foreign) && s.lead.Epoch == s.accepted
}

// follows: the old primary was asked in this hold, and is a replica on the new leader's timeline.
func (s *situation) follows() bool {
	p, e := s.former, s.lead.Epoch
	return s.state != Routed && p.Err == nil && !p.Writable && p.SystemID == e.SystemID && p.Timeline == e.Timeline && p.At.After(s.doubt)
}

func (s *situation) proven() bool { return s.lead.Phase == patroni.Writable }

// newer: a later leadership is proven.
func newer(s *situation) bool {
	o := s.order()
	return s.proven() && (o == patroni.Newer || o == patroni.Older && mutant.Is("law3-never-back"))
}

// renewed: the primary that we were on is proven anew, by evidence that began after the doubt.
func renewed(s *situation) bool {
	return s.proven() && s.order() == patroni.Same && s.lead.At.After(s.doubt) && !asked(s) && !ahead(s)
}

// asked: a planned operation, the before-stop hook of our primary, or a request to Patroni wants us to hold, and its
// time is not over.
func asked(s *situation) bool {
	w := asker(s)
	return w.id != "" && w.id != s.over
}

// lost: the primary that we are on does not answer as one.
func lost(s *situation) bool {
	return s.lead.Addr == s.addr() && gone(s.lead.Proof)
}

// gone: a server was asked, and does not answer as a primary.
func gone(p patroni.Proof) bool { return !p.At.IsZero() && !p.Writable }

// moved: the leader key names a member at another address.
func moved(s *situation) bool {
	return s.lead.Member != "" && s.lead.Addr.IsValid() && s.lead.Addr != s.addr()
}

// strange: a proven leadership that must not be followed.
func strange(s *situation) bool {
	return s.proven() && slices.Contains([]patroni.Order{patroni.Older, patroni.Rebuilt, patroni.Foreign}, s.order())
}

// ours: the last proven leadership is the one that the route belongs to, where it was proven.
func (s *situation) ours() bool {
	return s.home.IsValid() && s.lead.Addr == s.home && !s.lead.Epoch.IsZero() && s.lead.Epoch.Compare(s.epoch, true) == patroni.Same
}

// ahead: while the store does not answer, another member was seen to have gone on without our primary.
func ahead(s *situation) bool {
	return s.lead.Stale != nil && s.lead.Outage != nil && s.lead.Outage.Ahead != "" && s.ours()
}

// survives: while the store does not answer, the primary that we were on goes on, as all members have agreed to.
func survives(s *situation) bool {
	o, p := s.lead.Outage, s.lead.Proof
	return s.lead.Stale != nil && o != nil && o.Failsafe && o.Ahead == "" && s.ours() &&
		p.Writable && p.Timeline == s.epoch.Timeline && o.At.After(s.doubt) && o.At.After(s.lostAt) && !asked(s)
}

// expired: the hold has lasted as long as it may.
func expired(s *situation) bool {
	return !s.deadline.IsZero() && !s.now.Before(s.deadline) && !mutant.Is("law5-no-deadline")
}

// A step is what an agent does to its pooler.
type step int

const (
	stay   step = iota
	route       // to the proven leadership, and let clients go
	back        // let clients go on where they were, at the same epoch
	hold        // keep new transactions waiting
	refuse      // point the pooler at an address that refuses, and let clients go
)

// A rule of the write service: in a state, when its condition holds, take a step to the next state.
type rule struct {
	from PoolerState
	when string
	is   func(*situation) bool
	do   step
	to   PoolerState
}

// writeRules is the whole of an agent's behaviour, first match wins. What matches nothing stays as it is: trouble with
// the store alone is in no rule. agent.md shows it as a table.
var writeRules = []rule{
	{Routed, "a newer leadership is proven", newer, route, Routed},
	{Routed, "an operation, a stop of the primary or a request to Patroni asks for a hold", asked, hold, Held},
	{Routed, "the primary does not answer as one", lost, hold, Held},
	{Routed, "the leader key names another member", moved, hold, Held},
	{Routed, "the proven leadership is older, or of a rebuilt store or another database", strange, hold, Held},
	{Routed, "the store does not answer and a member is writable on a higher timeline", ahead, hold, Held},

	{Held, "a newer leadership is proven", newer, route, Routed},
	{Held, "the same primary is proven anew and nobody asks for a hold", renewed, route, Routed},
	{Held, "the store does not answer, and the same primary goes on by Patroni's failsafe mode", survives, back, Routed},
	{Held, "the deadline has passed", expired, refuse, Failed},

	{Failed, "a newer leadership is proven", newer, route, Routed},
	{Failed, "the same primary is proven anew and nobody asks for a hold", renewed, route, Routed},
	{Failed, "the store does not answer, and the same primary goes on by Patroni's failsafe mode", survives, back, Routed},
}

// decide returns the rule that applies, or nil.
func decide(s *situation) *rule {
	for i := range writeRules {
		if r := &writeRules[i]; r.from == s.state && r.is(s) {
			return r
		}
	}
	return nil
}

package topology

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

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
	over      string                       // whose time is over: an operation's id or a stop's

	// Of the present hold; zero when not held.
	doubt    time.Time     // a proof that began after this moment ends the hold on the same primary
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

// order says how the proven leadership stands to the route's.
func (s *situation) order() patroni.Order {
	same := s.lead.Addr == s.home
	if len(s.route.Hosts) == 0 || !s.home.IsValid() {
		// No address to stay on: what does not go back may be anywhere.
		same = same || s.lead.Epoch.Created >= s.epoch.Created
	}
	return s.lead.Epoch.Compare(s.epoch, same)
}

func (s *situation) proven() bool { return s.lead.Phase == patroni.Writable }

// newer: a later leadership is proven.
func newer(s *situation) bool { return s.proven() && s.order() == patroni.Newer }

// renewed: the primary that we were on is proven anew, by evidence that began after the doubt.
func renewed(s *situation) bool {
	return s.proven() && s.order() == patroni.Same && s.lead.At.After(s.doubt) && !asked(s)
}

// asked: a planned operation, or the before-stop hook of our primary, wants us to hold, and its time is not over.
func asked(s *situation) bool {
	id, _ := asker(s)
	return id != "" && id != s.over
}

// asker is who wants us to hold: the id of an operation or of a stop, and how long it may last.
func asker(s *situation) (id string, limit time.Duration) {
	stop, stopping := s.stops[s.lead.Member]
	stopping = stopping && s.lead.Addr == s.addr()
	o := s.operation
	if o.ID != "" && o.Epoch.Compare(s.epoch, true) == patroni.Same {
		// Where the hook asks, an operation keeps the hold that the hook began.
		if o.Phase == record.Hold || o.Phase == record.Switch && (!o.Hook || stopping || s.state == Held) {
			return o.ID, o.Limit
		}
	}
	if stopping {
		return fmt.Sprintf("stop of %s/%s", s.lead.Member, stop.ID), stop.Limit
	}
	return "", 0
}

// lost: the primary that we are on does not answer as one.
func lost(s *situation) bool {
	return s.lead.Addr == s.addr() && !s.lead.Proof.At.IsZero() && !s.lead.Proof.Writable
}

// moved: the leader key names a member at another address.
func moved(s *situation) bool {
	return s.lead.Member != "" && s.lead.Addr.IsValid() && s.lead.Addr != s.addr()
}

// strange: a proven leadership that must not be followed.
func strange(s *situation) bool {
	return s.proven() && slices.Contains([]patroni.Order{patroni.Older, patroni.Rebuilt, patroni.Foreign}, s.order())
}

// expired: the hold has lasted as long as it may.
func expired(s *situation) bool { return !s.deadline.IsZero() && !s.now.Before(s.deadline) }

// A step is what an agent does to its pooler.
type step int

const (
	stay   step = iota
	route       // to the proven leadership, and let clients go
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
	{Routed, "an operation or a stop of the primary asks for a hold", asked, hold, Held},
	{Routed, "the primary does not answer as one", lost, hold, Held},
	{Routed, "the leader key names another member", moved, hold, Held},
	{Routed, "the proven leadership is older, or of a rebuilt store or another database", strange, hold, Held},

	{Held, "a newer leadership is proven", newer, route, Routed},
	{Held, "the same primary is proven anew and nobody asks for a hold", renewed, route, Routed},
	{Held, "the deadline has passed", expired, refuse, Failed},

	{Failed, "a newer leadership is proven", newer, route, Routed},
	{Failed, "the same primary is proven anew and nobody asks for a hold", renewed, route, Routed},
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

package topology

import (
	"fmt"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
)

// wish is somebody's word that the poolers should hold; zero: nobody's.
type wish struct {
	id    string
	limit time.Duration // how long it may last
	kind  wishKind
}

type wishKind int

const (
	operates wishKind = iota // an operation of ours
	stops                    // the before-stop hook of our primary
	requests                 // somebody asked Patroni itself
)

// hearing is how long a request to Patroni is given to stop the primary. It may be in a long checkpoint before that, and
// clients are served meanwhile.
const hearing = time.Second

// asker is who wants us to hold.
func asker(s *situation) wish {
	stop, stopping := s.stops[s.lead.Member]
	stopping = stopping && s.lead.Addr == s.addr()
	if o := s.operation; s.operating() {
		// Where the hook asks, an operation keeps the hold that the hook began.
		if o.Phase == record.Hold || o.Phase == record.Switch && (!o.Hook || stopping || s.state == Held) {
			return wish{o.ID, o.Limit, operates}
		}
	}
	if stopping {
		return wish{fmt.Sprintf("stop of %s/%s", s.lead.Member, stop.ID), stop.Limit, stops}
	}
	if s.requested() && !s.lead.Failover.ScheduledAt.After(s.now) {
		return wish{fmt.Sprintf("request %d to Patroni", s.lead.Requested), hearing, requests}
	}
	return wish{}
}

// operating: the operation is about the leadership that we are on.
func (s *situation) operating() bool {
	return s.operation.ID != "" && s.operation.Epoch.Compare(s.epoch, true) == patroni.Same
}

// requested: Patroni's failover key asks our primary to step down, now or at its time by this machine's clock, and no
// hook of its node will say when. A paused Patroni does it only for a named candidate, one without its store not at all,
// and an operation of ours asks by itself. A request that is first seen when the primary is lost changes nothing: there is
// no stop to wait for, only a loss to mend.
func (s *situation) requested() bool {
	l, f := &s.lead, s.lead.Failover
	_, hooked := s.hooks[l.Member]
	if hooked || l.Requested == 0 || l.Requested == s.heard || l.Stale != nil || l.Member == "" || l.Addr != s.addr() {
		return false
	}
	if l.Paused && f.Candidate == "" || lost(s) && l.Requested != s.heeded {
		return false
	}
	if s.operating() && s.operation.Phase != record.Done {
		return false
	}
	return f.Candidate != l.Member && (f.Leader == l.Member || f.Leader == "" && f.Candidate != "")
}

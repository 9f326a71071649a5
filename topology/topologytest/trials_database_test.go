package topologytest_test

import (
	"slices"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/topology"
	"github.com/pgconvoy/pgconvoy/topology/topologytest"
)

// databaseTrials are the faults of PostgreSQL, of Patroni, and of whole nodes.
var databaseTrials = []trial{
	{
		name: "the primary's postmaster is killed", cost: flight, moves: true, short: "etcd consul zookeeper",
		do: func(_ *testing.T, s *topologytest.Stack) { s.Kill(s.Primary()) },
	},
	{
		name: "PostgreSQL stands still for 5 s", cost: waiting, short: "etcd",
		do: func(t *testing.T, s *topologytest.Stack) {
			thaw := s.Freeze(s.Primary())
			wait(t, 5*time.Second)
			thaw()
		},
	},
	{
		name: "PostgreSQL stands still for 30 s", cost: flight, moves: true,
		do: func(t *testing.T, s *topologytest.Stack) { frozen(t, s, 30*time.Second) },
	},
	{
		name: "PostgreSQL stands still for 60 s", cost: flight, moves: true,
		do: func(t *testing.T, s *topologytest.Stack) { frozen(t, s, time.Minute) },
	},
	{
		name: "the primary's node is killed", cost: flight, moves: true, short: "etcd",
		do: func(_ *testing.T, s *topologytest.Stack) {
			old := s.Leader()
			undo := s.Kill(old)
			awaitAnother(s, old)
			undo()
		},
	},
	{
		name: "the primary's node is parted from everybody", cost: flight, moves: true,
		do: func(_ *testing.T, s *topologytest.Stack) {
			old := s.Leader()
			heal := s.Isolate(old)
			awaitAnother(s, old)
			heal()
		},
	},
	{ // which goes on serving as a primary, until the fleet leaves it
		name: "the primary's Patroni is killed, not its PostgreSQL", cost: flight, moves: true,
		do: func(_ *testing.T, s *topologytest.Stack) {
			old := s.Leader()
			undo := s.Kill(old + "/patroni")
			awaitAnother(s, old)
			undo()
		},
	},
	{
		name: "the primary's Patroni stands still", cost: flight, moves: true,
		do: func(_ *testing.T, s *topologytest.Stack) {
			old := s.Leader()
			thaw := s.Freeze(old + "/patroni")
			awaitAnother(s, old)
			thaw()
		},
	},
	{
		name: "a replica is promoted by hand", cost: nothing, short: "etcd", do: twoPrimaries,
	},
	{
		name: "the key's holder never gets writable", cost: flight, moves: true, short: "etcd", do: neverWritable,
	},
	{
		name: "a replica lags", cost: nothing, short: "etcd", do: lagging,
	},
	{
		name: "the replication is narrow", cost: nothing,
		do: func(t *testing.T, s *topologytest.Stack) {
			undo := s.Throttle("replicas", s.Primary(), 200_000)
			wait(t, 5*time.Second)
			undo()
		},
	},
	{
		name: "a Patroni's clock jumps ahead by an hour", cost: nothing, short: "etcd",
		do: func(t *testing.T, s *topologytest.Stack) { clockJumps(t, s, time.Hour) },
	},
	{ // a Patroni that believes to have renewed its lease an hour from now lets it end
		name: "a Patroni's clock jumps back by an hour", cost: flight,
		do: func(t *testing.T, s *topologytest.Stack) { clockJumps(t, s, -time.Hour) },
	},
}

// wait is for how long a fault stays.
func wait(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}

// awaitAnother waits until all is routed to another node.
func awaitAnother(s *topologytest.Stack, old string) {
	s.Await(func(v topology.View) bool { return topologytest.Routed(v) && v.Leadership.Member != old })
}

func frozen(t *testing.T, s *topologytest.Stack, d time.Duration) {
	t.Helper()
	old := s.Leader()
	over := time.After(d)
	thaw := s.Freeze(s.Primary())
	awaitAnother(s, old)
	<-over
	thaw()
}

// twoPrimaries: a replica is writable too, on a higher timeline, and does not hold the key: nobody is routed there. No
// reader was there when it was promoted: who is connected to a replica cannot be kept from it at that very moment.
func twoPrimaries(t *testing.T, s *topologytest.Stack) {
	t.Helper()
	node := replica(s)
	heal := s.Cut("*/agent", node+"/postgres")
	s.Await(func(v topology.View) bool { return !readFrom(v, node) })
	undo := s.Promote(node)
	heal()
	for over := time.After(5 * time.Second); ; {
		v := s.View()
		if v.Leadership.Member == node || readFrom(v, node) {
			t.Errorf("%s was promoted by hand, and is used:\n%v", node, v)
		}
		select {
		case <-over:
			undo()
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// neverWritable: who holds the key and is not promoted gets no clients.
func neverWritable(t *testing.T, s *topologytest.Stack) {
	t.Helper()
	next := s.Standby()
	undo := s.HangPromote(next)
	s.Kill(s.Primary())
	s.Await(func(v topology.View) bool { return v.Leadership.Member == next })
	for over := time.After(3 * time.Second); ; {
		v := s.View()
		for _, p := range v.Poolers {
			if p.Service == topology.Write.String() && slices.Contains(addresses(p), route(v, next)) {
				t.Errorf("%s is routed to %s, which is not writable", p.Name, next)
			}
		}
		if v.Leadership.Phase == patroni.Writable.String() {
			t.Errorf("%s is writable, while its pre_promote hangs", next)
		}
		select {
		case <-over:
			undo()
			s.Await(func(v topology.View) bool { return topologytest.Routed(v) && v.Leadership.Member == next })
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// lagging: readers leave a replica that shows what is too old, and come back to it.
func lagging(t *testing.T, s *topologytest.Stack) {
	t.Helper()
	if !reads(s) {
		return
	}
	node := s.Standby()
	s.Await(func(v topology.View) bool { return readFrom(v, node) })
	undo := s.PauseReplay(node)
	s.Await(func(v topology.View) bool { return !readFrom(v, node) })
	undo()
	s.Await(func(v topology.View) bool { return readFrom(v, node) })
}

// replica is a node that streams and on which no commit waits, if there is one.
func replica(s *topologytest.Stack) string {
	var name string
	s.Await(func(v topology.View) bool {
		for _, m := range v.Members {
			if m.Name != v.Leadership.Member && m.Replication == "streaming" && (name == "" || !m.Sync) {
				name = m.Name
			}
		}
		return name != ""
	})
	return name
}

// readFrom reports whether a pooler, of whichever service, sends clients to a node that is not the proven primary.
func readFrom(v topology.View, node string) bool {
	return slices.ContainsFunc(v.Poolers, func(p topology.PoolerView) bool {
		return slices.Contains(addresses(p), route(v, node))
	})
}

func addresses(p topology.PoolerView) (out []string) {
	for _, a := range p.Target {
		out = append(out, a.String())
	}
	return out
}

// route is where poolers reach a node.
func route(v topology.View, node string) string {
	for _, m := range v.Members {
		if m.Name == node {
			return m.Route()
		}
	}
	return ""
}

func reads(s *topologytest.Stack) bool {
	return slices.ContainsFunc(s.Spec().Poolers, func(p topology.PgBouncer) bool { return p.Read })
}

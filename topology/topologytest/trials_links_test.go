package topologytest_test

import (
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/topology"
	"github.com/pgconvoy/pgconvoy/topology/topologytest"
)

// linkTrials cut each class of links once: by a reset, or deaf in one direction or both.
var linkTrials = []trial{
	{
		name: "links are cut that no client depends on", cost: nothing, short: "etcd",
		do: func(t *testing.T, s *topologytest.Stack) {
			for _, l := range needless(s) {
				heal := s.Cut(l.From, l.To)
				wait(t, hold(time.Second, 10*time.Second))
				heal()
			}
		},
	},
	{
		name: "the same links are deaf in one direction", cost: nothing,
		do: func(t *testing.T, s *topologytest.Stack) {
			for _, d := range []topologytest.Direction{topologytest.Forward, topologytest.Backward} {
				for _, l := range needless(s) {
					heal := s.HalfOpen(l.From, l.To, d)
					wait(t, 5*time.Second)
					heal()
				}
			}
		},
	},
	{
		name: "an agent is parted from the store", cost: nothing, short: "consul zookeeper",
		do: func(_ *testing.T, s *topologytest.Stack) {
			heal := s.HalfOpen("pgb-1/agent", storeOf(s), topologytest.Both)
			s.Await(func(v topology.View) bool { return !pooler(v, "pgb-1").Live })
			heal()
		},
	},
	{ // it cannot tell that from the end of the primary
		name: "an agent is cut off from the primary", cost: waiting, short: "etcd",
		do: func(t *testing.T, s *topologytest.Stack) {
			heal := s.Cut("pgb-1/agent", s.Primary())
			s.Await(func(v topology.View) bool { return pooler(v, "pgb-1").State == topology.Held })
			if st := pooler(s.View(), "pgb-2").State; st != topology.Routed {
				t.Errorf("pgb-2 is %s, its own probe works", st)
			}
			heal()
		},
	},
	{
		name: "an agent does not hear the primary", cost: waiting,
		do: func(_ *testing.T, s *topologytest.Stack) {
			heal := s.HalfOpen("pgb-1/agent", s.Primary(), topologytest.Backward)
			s.Await(func(v topology.View) bool { return pooler(v, "pgb-1").State == topology.Held })
			heal()
		},
	},
	{
		name: "clients are cut off from Envoy", cost: clients, short: "etcd",
		do: func(t *testing.T, s *topologytest.Stack) {
			heal := s.Cut("client", "envoy")
			wait(t, time.Second)
			heal()
		},
	},
	{
		name: "Envoy is cut off from a PgBouncer", cost: clients, short: "etcd",
		do: func(t *testing.T, s *topologytest.Stack) {
			heal := s.Cut("envoy", "pgb-1")
			wait(t, time.Second)
			heal()
		},
	},
	{ // the agents reach it, so nobody holds
		name: "the PgBouncers are cut off from the primary", cost: clients, short: "etcd",
		do: func(t *testing.T, s *topologytest.Stack) {
			heal := s.Cut("poolers", s.Primary())
			wait(t, time.Second)
			heal()
		},
	},
	{ // commits wait until Patroni does without a synchronous standby
		name: "the replicas are cut off from the primary", cost: nothing, short: "etcd",
		do: func(t *testing.T, s *topologytest.Stack) {
			heal := s.Cut("replicas", s.Primary())
			wait(t, hold(2*time.Second, 20*time.Second))
			heal()
		},
	},
	{
		name: "the primary's Patroni is cut off from the store", cost: flight, moves: true, short: "etcd",
		do: func(_ *testing.T, s *topologytest.Stack) {
			old := s.Leader()
			heal := s.Cut(old+"/patroni", storeOf(s))
			awaitAnother(s, old)
			heal()
		},
	},
	{
		name: "the primary's Patroni does not hear the store", cost: flight, moves: true,
		do: func(_ *testing.T, s *topologytest.Stack) {
			old := s.Leader()
			heal := s.HalfOpen(old+"/patroni", storeOf(s), topologytest.Backward)
			awaitAnother(s, old)
			heal()
		},
	},
	{
		name: "the store is slow for everybody", cost: nothing,
		do: func(t *testing.T, s *topologytest.Stack) {
			undo := s.Delay("*/*", storeOf(s), 200*time.Millisecond, 100*time.Millisecond)
			wait(t, 20*time.Second)
			undo()
		},
	},
}

// needless are links that clients can do without for a while.
func needless(s *topologytest.Stack) []topologytest.Link {
	standby := s.Standby()
	return []topologytest.Link{
		{From: "envoy", To: "cp-1"},
		{From: "cp-1", To: storeOf(s)},
		{From: "peers", To: "*/patroni"},
		{From: "coordinator", To: "*/patroni"},
		{From: standby + "/patroni", To: storeOf(s)},
		{From: "pgb-1/agent", To: "pgb-1"},
		{From: "pgb-1/agent", To: "*/patroni"},
		{From: "pgb-1/agent", To: standby + "/postgres"},
		{From: "pgb-1/agent", To: storeOf(s)},
	}
}

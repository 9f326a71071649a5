package topologytest_test

import (
	"testing"

	"github.com/pgconvoy/pgconvoy/topology"
	"github.com/pgconvoy/pgconvoy/topology/topologytest"
)

// storeTrials are the faults of the store itself: they move nobody.
var storeTrials = []trial{
	{
		name: "the store's leader changes in order", cost: nothing, short: "etcd", only: "etcd",
		do: func(t *testing.T, s *topologytest.Stack) {
			old := s.StoreLeader()
			s.MoveStoreLeader()
			if now := s.StoreLeader(); now == old {
				t.Errorf("%s still leads", now)
			}
		},
	},
	{
		name: "the store forgets its past", cost: nothing, short: "etcd", only: "etcd",
		do: func(_ *testing.T, s *topologytest.Stack) {
			heal := s.HalfOpen("*/*", storeOf(s), topologytest.Backward) // who has heard nothing since is told so
			s.CompactStore()
			heal()
		},
	},
	{
		name: "the store's leader is killed", cost: nothing, short: "etcd zookeeper", only: "etcd zookeeper", do: storeLeaderKilled,
	},
	{ // it may be the one that the primary's Patroni uses, which then gives up
		name: "Consul's leader is killed", cost: flight, short: "consul", only: "consul", do: storeLeaderKilled,
	},
	{
		name: "the store loses its majority for a moment", cost: nothing, short: "consul zookeeper",
		do: func(_ *testing.T, s *topologytest.Stack) {
			undo := s.LoseQuorum()
			s.Await(func(v topology.View) bool { return v.Stale != "" })
			undo()
			s.Await(func(v topology.View) bool { return v.Stale == "" })
		},
	},
}

func storeLeaderKilled(_ *testing.T, s *topologytest.Stack) {
	undo := s.Kill(s.StoreLeader())
	s.StoreLeader() // another one
	s.Await(topologytest.Routed)
	undo()
}

package topologytest_test

import (
	"strings"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/topology"
	"github.com/pgconvoy/pgconvoy/topology/ledger"
	"github.com/pgconvoy/pgconvoy/topology/topologytest"
)

// fleetTrials are the faults of PgBouncers, of their agents, of the control plane and of Envoy.
var fleetTrials = []trial{
	{
		name: "an agent is killed, and stays down", cost: nothing, short: "etcd",
		do: func(t *testing.T, s *topologytest.Stack) {
			undo := s.Kill("pgb-1/agent")
			wait(t, hold(2*time.Second, 30*time.Second))
			undo()
		},
	},
	{
		name: "an agent stands still", cost: nothing, short: "etcd",
		do: func(t *testing.T, s *topologytest.Stack) {
			thaw := s.Freeze("pgb-1/agent")
			wait(t, hold(2*time.Second, 30*time.Second))
			thaw()
		},
	},
	{ // its clients are on a dead primary until a supervisor has started it again
		name: "an agent and the primary are killed together", cost: clients, moves: true, short: "etcd",
		do: func(_ *testing.T, s *topologytest.Stack) {
			restart := s.Kill("pgb-1/agent")
			s.Kill(s.Primary())
			restart()
		},
	},
	{
		name: "a PgBouncer is killed", cost: clients, short: "etcd",
		do: func(t *testing.T, s *topologytest.Stack) {
			undo := s.Kill("pgb-1")
			wait(t, 2*time.Second)
			undo()
		},
	},
	{
		name: "a PgBouncer stands still", cost: clients, short: "etcd",
		do: func(t *testing.T, s *topologytest.Stack) {
			thaw := s.Freeze("pgb-1")
			wait(t, hold(3*time.Second, 20*time.Second))
			thaw()
		},
	},
	{name: "a PgBouncer is restarted while it is held", cost: clients, short: "etcd", do: restartedWhileHeld},
	{
		name: "the control plane, all agents and Envoy are killed in turn", cost: clients, short: "etcd", do: steerersKilled,
		after: func(t *testing.T, r ledger.Report) {
			t.Helper()
			for _, part := range r.Events {
				if part.Name == "kill envoy" {
					return
				}
				if strings.HasPrefix(part.Name, "kill ") && part.Failed > 0 {
					t.Errorf("after %s %d transactions failed (%s): who only steers was missed", part.Name, part.Failed, part.FirstError)
				}
			}
			t.Error("the report has no kill of Envoy")
		},
	},
}

// restartedWhileHeld: a PgBouncer that has forgotten its pause is paused again.
func restartedWhileHeld(t *testing.T, s *topologytest.Stack) {
	t.Helper()
	heal := s.Cut("pgb-1/agent", s.Primary())
	s.Await(func(v topology.View) bool { return pooler(v, "pgb-1").State == topology.Held })
	await(t, "pgb-1 is paused", func() bool { return paused(t, s, "pgb-1") })
	s.Kill("pgb-1")()
	await(t, "pgb-1 is paused again", func() bool { return query(t, s.AdminDSN("pgb-1"), "SHOW VERSION") == nil && paused(t, s, "pgb-1") })
	if st := pooler(s.View(), "pgb-1").State; st != topology.Held {
		t.Errorf("pgb-1 is %s, its agent reaches no primary", st)
	}
	heal()
}

// steerersKilled: without those who steer the traffic goes on.
func steerersKilled(t *testing.T, s *topologytest.Stack) {
	t.Helper()
	undo := []topologytest.Undo{s.Kill("cp-1")}
	for _, p := range s.Spec().Poolers {
		undo = append(undo, s.Kill(p.Name+"/agent"))
	}
	wait(t, 2*time.Second)
	s.Kill("envoy")() // it starts with what it is told, so the control plane must be there
	for _, u := range undo {
		u()
	}
}

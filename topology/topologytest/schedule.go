package topologytest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/pgconvoy/pgconvoy/topology"
)

// Fault is something that [Stack.Chaos] may do. There are ready ones, and one of your own is as short:
//
//	topologytest.Fault{Name: "TermReplica", Inject: func(s *topologytest.Stack, r *rand.Rand) topologytest.Undo {
//		return s.Terminate(s.Standby())
//	}}
type Fault struct {
	Name string

	// Inject does it and returns its undo, or nil. So that it does the same when it runs again, all that it chooses
	// depends on r, on the stack's Spec, and on who has a role at the moment, and on nothing else.
	Inject func(s *Stack, r *rand.Rand) Undo

	// Hold is for how long the fault stays before it is undone: from, to. Zero: from 0.2 s to 3 s.
	Hold [2]time.Duration
}

// hold fills in the default.
func (f Fault) hold() [2]time.Duration {
	if f.Hold == ([2]time.Duration{}) {
		return [2]time.Duration{200 * time.Millisecond, 3 * time.Second}
	}
	return f.Hold
}

func (f Fault) check() error {
	switch {
	case f.Name == "":
		return errors.New("Name is empty")
	case f.Inject == nil:
		return fmt.Errorf("Inject of %s is nil", f.Name)
	case f.Hold[0] < 0 || f.Hold[1] < f.Hold[0]:
		return fmt.Errorf("Hold of %s is from %v to %v", f.Name, f.Hold[0], f.Hold[1])
	}
	return nil
}

// turn is what a schedule has for one step.
type turn struct {
	Fault
	held, pause time.Duration
	r           *rand.Rand // for the fault's own choices
}

// turnOf draws the n-th turn of a schedule. Each one has a generator of its own, so that it depends on nothing but
// these arguments: neither on the time that others took nor on what their faults have drawn.
func turnOf(seed uint64, n int, faults []Fault) turn {
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	f := faults[r.IntN(len(faults))]
	between := func(d [2]time.Duration) time.Duration { return d[0] + time.Duration(r.Int64N(int64(d[1]-d[0])+1)) }
	held := between(f.hold())
	pause := between([2]time.Duration{100 * time.Millisecond, time.Second})
	return turn{f, held, pause, r}
}

// Faults are all ready ones that this stack can have: without [Options.Members] none of the store's servers, with
// [Options.Direct] none of links, with one node none of replication. A later version may have more of them, and then a
// seed means another sequence of them.
func (s *Stack) Faults() []Fault {
	faults := []Fault{
		KillPrimary(), FreezePrimary(), KillPatroni(),
		KillPooler(), FreezePooler(), KillAgent(), FreezeAgent(), KillControlPlane(), KillEnvoy(),
	}
	linked, replicated := s.links != nil, len(s.Spec().Nodes) > 1
	if replicated {
		faults = append(faults, KillNode(), KillStandby())
	}
	if linked {
		faults = append(faults, CutPatroniFromStore(), CutAgentFromStore(), CutAgentFromPrimary(), DelayStore())
	}
	if replicated && linked {
		faults = append(faults, CutReplication(), IsolateStandby(), PauseReplay())
	}
	if len(s.members()) > 2 {
		faults = append(faults, KillStoreLeader(), LoseQuorum())
	}
	return faults
}

// KillPrimary kills the primary's PostgreSQL.
func KillPrimary() Fault {
	return Fault{Name: "KillPrimary", Inject: func(s *Stack, _ *rand.Rand) Undo { return s.Kill(s.Primary()) }}
}

// FreezePrimary stops all processes of the primary's PostgreSQL.
func FreezePrimary() Fault {
	return Fault{Name: "FreezePrimary", Inject: func(s *Stack, _ *rand.Rand) Undo { return s.Freeze(s.Primary()) }}
}

// KillPatroni kills the Patroni of any node, and not its PostgreSQL.
func KillPatroni() Fault {
	return Fault{Name: "KillPatroni", Inject: func(s *Stack, r *rand.Rand) Undo {
		name := anyNode(s, r) + "/patroni"
		s.Await(func(topology.View) bool { // its node may be on the way back
			_, err := s.PID(name)
			return err == nil
		})
		return s.Kill(name)
	}}
}

// KillNode kills the whole node of the primary, for up to 40 s: with Patroni's usual ttl it comes back as the primary, or
// as a replica of another one.
func KillNode() Fault {
	return Fault{
		Name:   "KillNode",
		Inject: func(s *Stack, _ *rand.Rand) Undo { return s.Kill(s.Leader()) },
		Hold:   [2]time.Duration{time.Second, 40 * time.Second},
	}
}

// KillStandby kills the whole node that would take over ([Stack.Standby]).
func KillStandby() Fault {
	return Fault{Name: "KillStandby", Inject: func(s *Stack, _ *rand.Rand) Undo { return s.Kill(s.Standby()) }}
}

// KillPooler kills any PgBouncer.
func KillPooler() Fault {
	return Fault{Name: "KillPooler", Inject: func(s *Stack, r *rand.Rand) Undo { return s.Kill(anyPooler(s, r)) }}
}

// FreezePooler stops any PgBouncer: its clients wait, and new ones go elsewhere once Envoy notices.
func FreezePooler() Fault {
	return Fault{Name: "FreezePooler", Inject: func(s *Stack, r *rand.Rand) Undo { return s.Freeze(anyPooler(s, r)) }}
}

// KillAgent kills the agent of any PgBouncer.
func KillAgent() Fault {
	return Fault{Name: "KillAgent", Inject: func(s *Stack, r *rand.Rand) Undo {
		return s.Kill(anyPooler(s, r) + "/agent")
	}}
}

// FreezeAgent stops the agent of any PgBouncer.
func FreezeAgent() Fault {
	return Fault{Name: "FreezeAgent", Inject: func(s *Stack, r *rand.Rand) Undo {
		return s.Freeze(anyPooler(s, r) + "/agent")
	}}
}

// KillControlPlane kills the control plane.
func KillControlPlane() Fault {
	return Fault{Name: "KillControlPlane", Inject: func(s *Stack, _ *rand.Rand) Undo { return s.Kill("cp-1") }}
}

// KillEnvoy kills Envoy, for up to a second: until it is back, no client gets through.
func KillEnvoy() Fault {
	return Fault{
		Name:   "KillEnvoy",
		Inject: func(s *Stack, _ *rand.Rand) Undo { return s.Kill("envoy") },
		Hold:   [2]time.Duration{100 * time.Millisecond, time.Second},
	}
}

// KillStoreLeader kills the store's server that leads. With Consul that may be the one that the primary's Patroni uses.
func KillStoreLeader() Fault {
	return Fault{Name: "KillStoreLeader", Inject: func(s *Stack, _ *rand.Rand) Undo { return s.Kill(s.StoreLeader()) }}
}

// LoseQuorum kills the majority of the store's servers.
func LoseQuorum() Fault {
	return Fault{Name: "LoseQuorum", Inject: func(s *Stack, _ *rand.Rand) Undo { return s.LoseQuorum() }}
}

// DelayStore makes each answer that the Patronis and the agents get from the store 10 to 200 ms slower.
func DelayStore() Fault {
	return Fault{Name: "DelayStore", Inject: func(s *Stack, r *rand.Rand) Undo {
		latency := time.Duration(10+r.IntN(191)) * time.Millisecond
		return s.Delay("*/*", s.store(), latency, time.Duration(r.Int64N(latency.Milliseconds()+1))*time.Millisecond)
	}}
}

// CutPatroniFromStore cuts the Patroni of any node off from the store, for up to 10 s: it may give up, or not.
func CutPatroniFromStore() Fault {
	return Fault{
		Name:   "CutPatroniFromStore",
		Inject: func(s *Stack, r *rand.Rand) Undo { return s.Cut(anyNode(s, r)+"/patroni", s.store()) },
		Hold:   [2]time.Duration{time.Second, 10 * time.Second},
	}
}

// CutAgentFromStore cuts the agent of any PgBouncer off from the store, for up to 10 s: it may be taken for dead, or
// not.
func CutAgentFromStore() Fault {
	return Fault{
		Name:   "CutAgentFromStore",
		Inject: func(s *Stack, r *rand.Rand) Undo { return s.Cut(anyPooler(s, r)+"/agent", s.store()) },
		Hold:   [2]time.Duration{time.Second, 10 * time.Second},
	}
}

// CutAgentFromPrimary cuts the agent of any PgBouncer off from the primary's PostgreSQL: it cannot tell that from the end
// of the primary.
func CutAgentFromPrimary() Fault {
	return Fault{Name: "CutAgentFromPrimary", Inject: func(s *Stack, r *rand.Rand) Undo {
		return s.Cut(anyPooler(s, r)+"/agent", s.Primary())
	}}
}

// CutReplication cuts all replicas off from the primary.
func CutReplication() Fault {
	return Fault{Name: "CutReplication", Inject: func(s *Stack, _ *rand.Rand) Undo {
		return s.Cut("replicas", s.Primary())
	}}
}

// PauseReplay stops the replay of the node that would take over ([Stack.Standby]).
func PauseReplay() Fault {
	return Fault{Name: "PauseReplay", Inject: func(s *Stack, _ *rand.Rand) Undo { return s.PauseReplay(s.Standby()) }}
}

// IsolateStandby parts the node that would take over ([Stack.Standby]) from all others.
func IsolateStandby() Fault {
	return Fault{Name: "IsolateStandby", Inject: func(s *Stack, _ *rand.Rand) Undo { return s.Isolate(s.Standby()) }}
}

func anyNode(s *Stack, r *rand.Rand) string {
	nodes := s.Spec().Nodes
	return nodes[r.IntN(len(nodes))].Name
}

func anyPooler(s *Stack, r *rand.Rand) string {
	poolers := s.Spec().Poolers
	return poolers[r.IntN(len(poolers))].Name
}

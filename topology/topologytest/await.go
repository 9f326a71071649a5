package topologytest

import (
	"context"
	"fmt"

	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/topology"
)

// Routed reports whether a writable primary is proven and every pooler of the roster serves at that primary's epoch.
func Routed(v topology.View) bool {
	if !v.Routed() {
		return false
	}
	for _, p := range v.Poolers {
		if p.Epoch != v.Leadership.Epoch {
			return false
		}
	}
	return true
}

// Whole reports whether nothing is missing: all nodes stream, a synchronous standby is there, all poolers are routed
// where they belong, and Envoy serves them.
func (s *Stack) Whole(v topology.View) bool { return s.whole(v) }

func (u *running) whole(v topology.View) bool { return u.r.Ready(v) && Routed(v) }

// Await returns when a view of the stack satisfies done, for example [Routed] or [Stack.Whole]. It fails the test after
// [Options.Limit].
func (s *Stack) Await(done func(topology.View) bool) {
	s.t.Helper()
	if err := s.await(s.t.Context(), done); err != nil {
		s.t.Fatalf("topologytest: %v", err)
	}
}

func (u *running) await(ctx context.Context, done func(topology.View) bool) error {
	ctx, cancel := context.WithTimeout(ctx, u.o.limit())
	defer cancel()
	defer context.AfterFunc(u.ctx, cancel)()
	var last topology.View
	err := u.r.Await(ctx, func(v topology.View) bool {
		last = v
		return known(v) && done(v)
	})
	switch {
	case err == nil:
		return nil
	case u.ctx.Err() != nil:
		return fmt.Errorf("the stack failed: %w", context.Cause(u.ctx))
	}
	return fmt.Errorf("waited %v in vain (%w); the last view:\n%v", u.o.limit(), err, last)
}

// known reports whether a view has heard from all parts, or says why not: of a stack that runs, none is empty. A watch
// begins with less.
func known(v topology.View) bool {
	phase := v.Leadership.Phase
	return v.Stale != "" || len(v.Members) > 0 && len(v.Poolers) > 0 && len(v.ControlPlanes) > 0 && phase != patroni.Unknown.String()
}

// Leader is the name of the node that is the proven primary, "n1" for example. It waits until there is one.
func (s *Stack) Leader() string {
	s.t.Helper()
	var name string
	s.Await(func(v topology.View) bool {
		name = v.Leadership.Member
		return v.Leadership.Phase == patroni.Writable.String()
	})
	return name
}

// Primary is the component that is the primary's PostgreSQL, "n1/postgres" for example. It waits until there is one.
func (s *Stack) Primary() string {
	s.t.Helper()
	return s.Leader() + "/postgres"
}

// Standby is the name of a node that is a synchronous standby, the one that takes over; without synchronous
// replication of any that streams. It waits until there is one.
func (s *Stack) Standby() string {
	s.t.Helper()
	var name string
	s.Await(func(v topology.View) bool {
		for _, m := range v.Members {
			if m.Name != v.Leadership.Member && m.Replication == "streaming" && (m.Sync || s.Spec().Asynchronous) {
				name = m.Name
				return true
			}
		}
		return false
	})
	return name
}

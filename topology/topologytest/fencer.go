package topologytest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/topology"
)

// Fencer is one that really kills, for a [topology.Fencing] of this stack: it takes down all processes of a node, as
// [Stack.Kill] does, and confirms when they are gone, also of a node that is down already. The node stays down until the end
// of the test. It may be used from any goroutine.
func (s *Stack) Fencer() topology.Fencer { return fencer{s} }

type fencer struct{ s *Stack }

// Fence implements [topology.Fencer].
func (f fencer) Fence(ctx context.Context, m patroni.Member) error {
	if !slices.ContainsFunc(f.s.Spec().Nodes, func(n topology.Node) bool { return n.Name == m.Name }) {
		return fmt.Errorf("topologytest: the stack has no node %q", m.Name)
	}
	name := "fence " + m.Name
	f.s.mark(name)
	if err := f.s.r.Down(ctx, m.Name, syscall.SIGKILL); err != nil {
		if ctx.Err() != nil || f.s.ctx.Err() != nil {
			return fmt.Errorf("topologytest: %s: %w", name, err)
		}
		if _, here := f.s.PID(m.Name); here == nil {
			return fmt.Errorf("topologytest: %s: %w", name, err)
		}
		return nil // it is down: who took it down brings it up again
	}
	heal, err := f.s.refuse(m.Name)
	f.s.remember(&fault{name: name, undo: func(ctx context.Context) error {
		err := f.s.r.Up(ctx, m.Name)
		if heal != nil {
			err = errors.Join(err, heal())
		}
		return err
	}})
	if err != nil {
		return fmt.Errorf("topologytest: %s: %w", name, err)
	}
	return nil
}

package topologytest_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/topology"
	"github.com/pgconvoy/pgconvoy/topology/ledger"
	"github.com/pgconvoy/pgconvoy/topology/topologytest"
)

// TestNodeFenced: all of the primary's node dies. When that is confirmed its claim is ended, and nobody waits for the ttl.
func TestNodeFenced(t *testing.T) {
	s := shared.Start(t)
	f := fence(t, s, s.Fencer())
	fenced(t, f, underLoad(t, s, func() {
		old := s.Leader()
		began := time.Now()
		s.Kill(old)
		elsewhere(t, s, old, began)
	}))
}

// TestHungNodeFenced: everything on the primary's node stands still. The fencer kills it.
func TestHungNodeFenced(t *testing.T) {
	s := topologytest.Start(t, topologytest.Options{
		DCS:  "consul",
		Spec: topology.Spec{Nodes: topology.NodesNamed(2), Poolers: topology.PoolersNamed(1, 0), Timing: shared.Options.Spec.Timing},
	})
	f := fence(t, s, s.Fencer())
	fenced(t, f, underLoad(t, s, func() {
		old := s.Leader()
		began := time.Now()
		s.Freeze(old + "/patroni")
		s.Freeze(old + "/postgres")
		elsewhere(t, s, old, began)
		if pid, err := s.PID(old); err == nil {
			t.Errorf("%s lives on as process %d", old, pid)
		}
	}))
}

// TestFalselyFenced: a fencer confirms what is not so. The node stands still meanwhile, and goes on when another one serves:
// what it has lost is its lease and not only its key, so it serves nobody.
func TestFalselyFenced(t *testing.T) {
	s := shared.Start(t)
	f := fence(t, s, liar{})
	fenced(t, f, underLoad(t, s, func() {
		old := s.Leader()
		began := time.Now()
		thaw := s.Freeze(old)
		elsewhere(t, s, old, began)
		thaw()
		s.Await(func(v topology.View) bool { return s.Whole(v) && v.Leadership.Member != old })
	}))
}

// liar confirms whatever it is asked.
type liar struct{}

func (liar) Fence(context.Context, patroni.Member) error { return nil }

// fence runs a Fencing beside a test.
func fence(t *testing.T, s *topologytest.Stack, f topology.Fencer) *topology.Fencing {
	t.Helper()
	c := s.Cluster()
	c.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	role := &topology.Fencing{
		Cluster: c, Name: "test", Fencer: f, Patroni: s.Patroni(),
		After: 100 * time.Millisecond, Every: time.Second, // the record outlives the tests before
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() {
		if err := role.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("fencing ended with %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return role
}

// elsewhere waits until all are routed to another primary.
func elsewhere(t *testing.T, s *topologytest.Stack, old string, began time.Time) {
	t.Helper()
	s.Await(func(v topology.View) bool { return topologytest.Routed(v) && v.Leadership.Member != old })
	t.Logf("routed to another primary after %v, of a ttl of 20 s", time.Since(began).Round(time.Millisecond))
}

// fenced fails unless the last attempt ended the claim, before it ran out by itself, and only what was in flight has failed.
func fenced(t *testing.T, f *topology.Fencing, r ledger.Report) {
	t.Helper()
	if r.Failed > r.InFlight {
		t.Errorf("%d transactions failed (%v), more than the %d in flight", r.Failed, r.BySQLState, r.InFlight)
	}
	snap, err := f.Store.Get(t.Context(), record.Dir(f.Path))
	if err != nil {
		t.Fatal(err)
	}
	all, _, err := record.FencesOf(snap, f.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("silence %v; attempts: %+v", r.Silence, all.Fences)
	if n := len(all.Fences); n == 0 || all.Fences[n-1].Outcome != record.FenceEnded || all.Fences[n-1].At.Before(r.From) {
		t.Error("no claim was ended")
	}
}

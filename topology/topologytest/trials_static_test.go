package topologytest_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/topology/topologytest"
)

// staticTrials take the store away from everybody, for longer than Patroni's ttl.
var staticTrials = []trial{
	{ // Patroni gives the primary up; who waits is moved to the next one
		name: "the store is gone, without failsafe mode", cost: flight, short: "etcd",
		do: func(t *testing.T, s *topologytest.Stack) {
			undo := s.LoseQuorum()
			wait(t, hold(15*time.Second, 45*time.Second))
			undo()
		},
	},
	{
		name: "the store is gone, in failsafe mode", cost: nothing, short: "etcd",
		do: func(t *testing.T, s *topologytest.Stack) {
			failsafe(t, s, func() {
				age := staleness(t, s)
				undo := s.LoseQuorum()
				wait(t, hold(25*time.Second, 10*time.Minute))
				if err := query(t, s.WriteDSN(), "SELECT 1"); err != nil {
					t.Errorf("a new client without the store: %v", err) // Envoy keeps its endpoints
				}
				age()
				undo()
			})
		},
	},
	{ // the store goes on, and the primary's key ends: it is taken again, at a higher revision
		name: "nobody reaches the store, in failsafe mode", cost: nothing,
		do: func(t *testing.T, s *topologytest.Stack) {
			failsafe(t, s, func() {
				heal := []topologytest.Undo{s.Cut("*/*", storeOf(s)), s.Cut("cp-1", storeOf(s))}
				wait(t, time.Minute)
				for _, h := range heal {
					h()
				}
			})
		},
	},
}

// failsafe does something while Patroni's failsafe mode is on, and all members know of it.
func failsafe(t *testing.T, s *topologytest.Stack, do func()) {
	t.Helper()
	set := func(on any) {
		t.Helper()
		v := s.View()
		for _, m := range v.Members {
			if m.Name == v.Leadership.Member {
				ctx, cancel := contextFor(t, 10*time.Second)
				defer cancel()
				if err := s.Patroni().PatchConfig(ctx, m.API, map[string]any{"failsafe_mode": on}); err != nil {
					t.Fatal(err)
				}
				return
			}
		}
		t.Fatalf("nobody leads:\n%v", v)
	}
	s.Leader()
	set(true)
	key := s.Spec().Path + "/failsafe"
	await(t, key+" is there", func() bool {
		ctx, cancel := contextFor(t, 10*time.Second)
		defer cancel()
		snap, err := s.Store().Get(ctx, s.Spec().Path)
		if err != nil {
			t.Fatal(err)
		}
		_, ok := snap.Get(key)
		return ok
	})
	wait(t, 6*time.Second) // a loop of every Patroni: they do not say when they know it
	do()
	s.Leader()
	set(nil)
}

// staleness follows the view of one observer. The result fails the test if that did not say that it is stale, and for
// longer and longer.
func staleness(t *testing.T, s *topologytest.Stack) (judge func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var ages []time.Duration
	known := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		heard := false
		for v, err := range s.Observer().Watch(ctx) {
			if err != nil {
				return
			}
			if v.Stale == "" && !v.Confirmed.IsZero() && !heard {
				heard = true
				close(known)
			}
			if v.Stale != "" && heard {
				ages = append(ages, v.At.Sub(v.Confirmed))
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	select {
	case <-known:
	case <-time.After(time.Minute):
		t.Fatal("the store confirms nothing")
	}
	began := time.Now()
	return func() {
		t.Helper()
		gone := time.Since(began)
		cancel()
		wg.Wait()
		if len(ages) < 3 || ages[len(ages)-1] < gone/2 {
			t.Fatalf("the store was gone for %v, and the view was stale for %v", gone, ages)
		}
		for i := 1; i < len(ages); i++ {
			if ages[i] < ages[i-1] {
				t.Errorf("the view's age went back from %v to %v", ages[i-1], ages[i])
			}
		}
		t.Logf("the store was gone for %v; the view's age grew from %v to %v", gone, ages[0], ages[len(ages)-1])
	}
}

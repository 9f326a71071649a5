package topologytest_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/topology"
	"github.com/pgconvoy/pgconvoy/topology/ledger"
	"github.com/pgconvoy/pgconvoy/topology/topologytest"
)

// shared has Patroni's shortest time to live, so that the death of a node is noticed in 20 s, and a store with a majority
// to lose.
var shared = topologytest.Shared{Options: topologytest.Options{
	Members: 3, Limit: 2 * time.Minute,
	Spec: topology.Spec{Timing: topology.Timing{TTL: 20, LoopWait: 5, RetryTimeout: 5}},
}}

func TestMain(m *testing.M) {
	undo, err := breakClocks()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := shared.Main(m)
	undo()
	os.Exit(code)
}

// TestPlannedSwitchover: nobody notices.
func TestPlannedSwitchover(t *testing.T) {
	s := shared.Start(t)
	r := underLoad(t, s, func() {
		report, err := s.Do(t.Context(), topology.Switchover{})
		if err != nil {
			t.Fatal(err)
		}
		t.Log(report)
	})
	if r.Failed > 0 {
		t.Errorf("%d of %d transactions failed (%s), want 0", r.Failed, r.Sent, r.FirstError)
	}
}

// underLoad runs an event while clients write and read, and proves what must hold whatever happens: no acknowledged
// transaction is lost, none is there that should not be, and nobody is served by an older timeline after a newer one.
func underLoad(t *testing.T, s *topologytest.Stack, event func()) ledger.Report {
	t.Helper()
	l := s.Write(t, ledger.Load{Every: 25 * time.Millisecond, Readers: 5}) // what a slow machine with the race detector can do
	l.Await(300)
	event()
	l.Await(300)
	r := l.Stop()
	t.Logf("\n%v", r)
	if r.Lost > 0 || r.Surplus > 0 {
		t.Errorf("%d acknowledged transactions are lost, %d rows are there that should not be", r.Lost, r.Surplus)
	}
	if r.Back > 0 || r.Stale > 0 {
		t.Errorf("%d transactions saw an older timeline than before, %d writes were accepted by an older primary", r.Back, r.Stale)
	}
	picture(t, r)
	return r
}

// picture writes the report's timeline where PGCONVOY_PICTURES says.
func picture(t *testing.T, r ledger.Report) {
	t.Helper()
	dir := os.Getenv("PGCONVOY_PICTURES")
	if dir == "" {
		return
	}
	f, err := os.Create(fmt.Sprintf("%s/%s.svg", dir, strings.ReplaceAll(t.Name(), "/", "-")))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.WriteSVG(f); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

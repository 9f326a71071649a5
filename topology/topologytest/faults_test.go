package topologytest_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/topology"
	"github.com/pgconvoy/pgconvoy/topology/ledger"
	"github.com/pgconvoy/pgconvoy/topology/topologytest"
)

// TestLinks: every way between two components can be broken.
func TestLinks(t *testing.T) {
	s := shared.Start(t)
	links := s.Links()
	for _, want := range []topologytest.Link{
		{From: "client", To: "envoy"},
		{From: "envoy", To: "pgb-1"},
		{From: "envoy", To: "cp-1"},
		{From: "poolers", To: "n1/postgres"},
		{From: "replicas", To: "n1/postgres"},
		{From: "peers", To: "n1/patroni"},
		{From: "n1/patroni", To: "etcd-1"},
		{From: "pgb-1/agent", To: "etcd-1"},
		{From: "pgb-1/agent", To: "pgb-1"},
		{From: "pgb-1/agent", To: "n1/postgres"},
		{From: "pgb-1/agent", To: "n1/patroni"},
		{From: "cp-1", To: "etcd-1"},
		{From: "coordinator", To: "n1/patroni"},
	} {
		if !slices.Contains(links, want) {
			t.Errorf("there is no link %v", want)
		}
	}

	// What each carries is what its name says: who depends on it sees it cut, and healed.
	for _, c := range []struct {
		from, to string
		broken   func() error // nil: it is not
	}{
		{"client", "envoy", func() error { return query(t, s.WriteDSN(), "SELECT 1") }},
		{"envoy", "pgb-*", func() error { return query(t, s.WriteDSN(), "SELECT 1") }},
		{"coordinator", "*/patroni", func() error {
			ctx, cancel := contextFor(t, 5*time.Second)
			defer cancel()
			_, err := s.Patroni().Status(ctx, s.View().Members[0].API)
			return err
		}},
	} {
		await(t, c.from+" works", func() bool { return c.broken() == nil })
		heal := s.Cut(c.from, c.to)
		await(t, c.from+" is cut", func() bool { return c.broken() != nil })
		heal()
		await(t, c.from+" is healed", func() bool { return c.broken() == nil })
	}

	t.Run("replication", func(t *testing.T) {
		heal := s.Cut("replicas", s.Primary())
		s.Await(func(v topology.View) bool { return streaming(v) == 0 })
		heal()
		s.Await(s.Whole)
	})
	t.Run("delay", func(t *testing.T) {
		undo := s.Delay("client", "envoy", 300*time.Millisecond, 0)
		began := time.Now()
		if err := query(t, s.WriteDSN(), "SELECT 1"); err != nil {
			t.Error(err)
		}
		if d := time.Since(began); d < 300*time.Millisecond {
			t.Errorf("a connection and a query took %v, with each answer delayed by 300 ms", d)
		}
		undo()
	})
	t.Run("throttle", func(t *testing.T) {
		undo := s.Throttle("poolers", s.Primary(), 100_000)
		began := time.Now()
		if err := query(t, s.WriteDSN(), "SELECT repeat('x', 100000)"); err != nil {
			t.Error(err)
		}
		if d := time.Since(began); d < 500*time.Millisecond {
			t.Errorf("100 kB came in %v, with 100 kB/s", d)
		}
		undo()
	})
}

// TestComponents: whatever is killed, terminated or frozen is so, comes back with the undo, and takes nothing with it.
func TestComponents(t *testing.T) {
	s := shared.Start(t)
	l := s.Write(t, ledger.Load{Writers: 5, Every: 20 * time.Millisecond})
	for _, c := range []string{"pgb-2", "pgb-2/agent", "cp-1", "envoy", s.Standby() + "/patroni", s.Standby() + "/postgres", s.Standby()} {
		t.Run(strings.ReplaceAll(c, "/", "-"), func(t *testing.T) {
			awaitRunning(t, s, c)
			s.Freeze(c)()
			s.Kill(c)()
			awaitRunning(t, s, c)
			s.Await(s.Whole)
			if !strings.HasSuffix(c, "/postgres") { // that would wait for its clients
				s.Terminate(c)()
			}
			awaitRunning(t, s, c)
			s.Await(s.Whole)
			l.Await(10)
		})
	}
	r := l.Stop()
	t.Logf("\n%v", r)
	if r.Lost > 0 || r.Surplus > 0 || r.Stale > 0 {
		t.Errorf("%d lost, %d surplus, %d stale", r.Lost, r.Surplus, r.Stale)
	}
}

// awaitRunning waits until a component is there: what the store says of a replica lags behind.
func awaitRunning(t *testing.T, s *topologytest.Stack, component string) {
	t.Helper()
	await(t, component+" runs", func() bool {
		_, err := s.PID(component)
		return err == nil
	})
}

// TestHangs: a node that holds the key and waits for its archive is not taken for a primary.
func TestHangs(t *testing.T) {
	s := shared.Start(t)
	s.Await(s.Whole)
	next := s.Standby()
	undo := s.HangRestore(next)
	s.Kill(s.Primary())
	s.Await(func(v topology.View) bool { return v.Leadership.Member == next })
	if v := s.View(); v.Leadership.Phase == patroni.Writable.String() {
		t.Errorf("%s is writable, while its restore_command hangs", next)
	}
	undo()
	s.Await(func(v topology.View) bool { return topologytest.Routed(v) && v.Leadership.Member == next })
}

// TestDiskFull: a primary without a byte of room takes no writes, and serves again when there is room. What it had
// acknowledged is there, and nobody was moved: there is nobody else.
func TestDiskFull(t *testing.T) {
	s := topologytest.Start(t, topologytest.Options{
		Disk: 400 << 20,
		Spec: topology.Spec{Nodes: topology.NodesNamed(1), Poolers: topology.PoolersNamed(1, 0)},
	})
	one := func(_ testing.TB, s *topologytest.Stack) { s.MoveStoreLeader() }
	if said := fatal(t, s, one); !strings.Contains(said, "Options.Members makes more") {
		t.Errorf("%q, want an error that says how to have more servers", said)
	}
	if err := query(t, s.WriteDSN(), "CREATE TABLE filler (x text)"); err != nil {
		t.Fatal(err)
	}
	e := &evidence{services: map[string]string{"pgb-1": topology.Write.String()}}
	follow := leaderships(t, s)
	e.report = underLoad(t, s, func() {
		e.began = time.Now()
		undo := s.FillDisk("n1")
		await(t, "the disk is full", func() bool {
			err := query(t, s.WriteDSN(), "INSERT INTO filler SELECT repeat(md5(i::text), 100) FROM generate_series(1, 10000) i")
			pg, ok := errors.AsType[*pgconn.PgError](err)
			return ok && pg.Code == "53100"
		})
		undo()
		ended := time.Now()
		await(t, "it serves again", func() bool { return query(t, s.WriteDSN(), "INSERT INTO filler VALUES ('x')") == nil })
		s.Await(topologytest.Routed)
		e.recovery = time.Since(ended)
	})
	e.epochs = follow()
	e.histories, _ = histories(t, s, e.began)
	for _, v := range violations(e, clients) {
		t.Error(v)
	}
}

// TestMisuse: what cannot be is refused with what there is.
func TestMisuse(t *testing.T) {
	s := shared.Start(t)
	for _, c := range []struct {
		name, want string
		do         func(tb testing.TB, s *topologytest.Stack)
	}{
		{"unknown component", `there is no component "n9", but cp-1, envoy, etcd-1, etcd-2, etcd-3, n1, `, func(_ testing.TB, s *topologytest.Stack) { s.Kill("n9") }},
		{"unknown link", "there is no such link, but [client -> envoy", func(_ testing.TB, s *topologytest.Stack) { s.Cut("pgb-1", "n9/postgres") }},
		{"bad pattern", "syntax error in pattern", func(_ testing.TB, s *topologytest.Stack) { s.Cut("[", "envoy") }},
		{"bad latency", "latency -1s is not", func(_ testing.TB, s *topologytest.Stack) { s.Delay("client", "envoy", -time.Second, 0) }},
		{"down already", "pgb-3 is down", func(_ testing.TB, s *topologytest.Stack) { s.Kill("pgb-3"); s.Kill("pgb-3") }},
		{"frozen while down", "pgb-3 is down", func(_ testing.TB, s *topologytest.Stack) { s.Kill("pgb-3"); s.Freeze("pgb-3") }},
		{"frozen already", "envoy is frozen already", func(_ testing.TB, s *topologytest.Stack) { s.Freeze("envoy"); s.Freeze("envoy") }},
		{"no disk", "Options.Disk is not set", func(_ testing.TB, s *topologytest.Stack) { s.FillDisk("n1") }},
		{"hangs already", "it does so already", func(_ testing.TB, s *topologytest.Stack) { s.HangPromote("n1"); s.HangPromote("n1") }},
		{"replay of nobody", "there is no such node", func(_ testing.TB, s *topologytest.Stack) { s.PauseReplay("n9") }},
		{"replay of the primary", "which replays nothing", func(_ testing.TB, s *topologytest.Stack) { s.PauseReplay(s.Leader()) }},
		{"promotion of nobody", `there is no component "n9/patroni"`, func(_ testing.TB, s *topologytest.Stack) { s.Promote("n9") }},
		{"unknown node", `the stack has no "n9"`, func(_ testing.TB, s *topologytest.Stack) { s.DirectDSN("n9") }},
		{"bad load", "Load.Writers is -1", func(tb testing.TB, s *topologytest.Stack) { s.Write(tb, ledger.Load{Writers: -1}) }},
	} {
		said := fatal(t, s, c.do)
		if !strings.Contains(said, c.want) {
			t.Errorf("%s: %q, want an error with %q", c.name, said, c.want)
		}
	}
	s.Await(s.Whole) // all was undone
}

// fatal runs what fails a test, for another test than this one, and returns what it said.
func fatal(t *testing.T, s *topologytest.Stack, do func(tb testing.TB, s *topologytest.Stack)) string {
	t.Helper()
	return apart(t, func(tb testing.TB) { do(tb, s.For(tb)) }).said
}

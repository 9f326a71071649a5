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
	t.Run("probe of one agent", func(t *testing.T) {
		heal := s.Cut("pgb-1/agent", s.Primary())
		s.Await(func(v topology.View) bool { return pooler(v, "pgb-1").State == topology.Held })
		if st := pooler(s.View(), "pgb-2").State; st != topology.Routed {
			t.Errorf("pgb-2 is %s, its own probe works", st)
		}
		heal()
		s.Await(topologytest.Routed)
	})
	t.Run("an agent's store", func(t *testing.T) {
		heal := s.HalfOpen("pgb-1/agent", "etcd-*", topologytest.Both)
		s.Await(func(v topology.View) bool { return !pooler(v, "pgb-1").Live })
		heal()
		s.Await(topologytest.Routed)
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

// TestNodeIsolated: a primary that the network parts from everybody is replaced, and follows when it is back.
func TestNodeIsolated(t *testing.T) {
	s := shared.Start(t)
	underLoad(t, s, func() {
		old := s.Leader()
		heal := s.Isolate(old)
		s.Await(func(v topology.View) bool { return topologytest.Routed(v) && v.Leadership.Member != old })
		heal()
		s.Await(s.Whole)
	})
}

// TestStoreFaults: three etcd servers lose a leader, the majority, and their past, while clients write.
func TestStoreFaults(t *testing.T) {
	s := topologytest.Start(t, topologytest.Options{
		Members: 3,
		Spec:    topology.Spec{Nodes: topology.NodesNamed(2), Poolers: topology.PoolersNamed(2, 0)},
	})
	r := underLoad(t, s, func() {
		old := s.StoreLeader()
		s.MoveStoreLeader()
		if now := s.StoreLeader(); now == old {
			t.Errorf("%s still leads", now)
		}
		s.CompactStore()
		undo := s.Kill(s.StoreLeader())
		s.Await(topologytest.Routed)
		undo()
		undo = s.LoseQuorum()
		s.Await(func(v topology.View) bool { return v.Stale != "" })
		undo()
		s.Await(func(v topology.View) bool { return v.Stale == "" && s.Whole(v) })
	})
	if r.Failed > 0 {
		t.Errorf("%d transactions failed (%s): trouble with the store alone moves nobody", r.Failed, r.FirstError)
	}
}

// TestHangs: a node that holds the key and cannot be promoted is not taken for a primary.
func TestHangs(t *testing.T) {
	s := shared.Start(t)
	for name, hang := range map[string]func(node string) topologytest.Undo{
		"pre_promote": s.HangPromote, "restore_command": s.HangRestore,
	} {
		t.Run(name, func(t *testing.T) {
			s.Await(s.Whole)
			next := s.Standby()
			undo := hang(next)
			s.Kill(s.Primary())
			s.Await(func(v topology.View) bool { return v.Leadership.Member == next })
			v := s.View()
			if v.Leadership.Phase == patroni.Writable.String() {
				t.Errorf("%s is writable, while its %s hangs", next, name)
			}
			undo()
			s.Await(func(v topology.View) bool { return topologytest.Routed(v) && v.Leadership.Member == next })
		})
	}
}

// TestDiskFull: a primary without a byte of room takes no writes, and serves again when there is room.
func TestDiskFull(t *testing.T) {
	s := topologytest.Start(t, topologytest.Options{
		Disk: 400 << 20,
		Spec: topology.Spec{Nodes: topology.NodesNamed(1), Poolers: topology.PoolersNamed(1, 0)},
	})
	if err := query(t, s.WriteDSN(), "CREATE TABLE filler (x text)"); err != nil {
		t.Fatal(err)
	}
	undo := s.FillDisk("n1")
	await(t, "the disk is full", func() bool {
		err := query(t, s.WriteDSN(), "INSERT INTO filler SELECT repeat(md5(i::text), 100) FROM generate_series(1, 10000) i")
		pg, ok := errors.AsType[*pgconn.PgError](err)
		return ok && pg.Code == "53100"
	})
	undo()
	await(t, "it serves again", func() bool { return query(t, s.WriteDSN(), "INSERT INTO filler VALUES ('x')") == nil })
}

// TestMisuse: what cannot be is refused with what there is.
func TestMisuse(t *testing.T) {
	s := shared.Start(t)
	for _, c := range []struct {
		name, want string
		do         func(tb testing.TB, s *topologytest.Stack)
	}{
		{"unknown component", `there is no component "n9", but cp-1, envoy, etcd-1, n1, `, func(_ testing.TB, s *topologytest.Stack) { s.Kill("n9") }},
		{"unknown link", "there is no such link, but [client -> envoy", func(_ testing.TB, s *topologytest.Stack) { s.Cut("pgb-1", "n9/postgres") }},
		{"bad pattern", "syntax error in pattern", func(_ testing.TB, s *topologytest.Stack) { s.Cut("[", "envoy") }},
		{"bad latency", "latency -1s is not", func(_ testing.TB, s *topologytest.Stack) { s.Delay("client", "envoy", -time.Second, 0) }},
		{"down already", "pgb-3 is down", func(_ testing.TB, s *topologytest.Stack) { s.Kill("pgb-3"); s.Kill("pgb-3") }},
		{"frozen while down", "pgb-3 is down", func(_ testing.TB, s *topologytest.Stack) { s.Kill("pgb-3"); s.Freeze("pgb-3") }},
		{"frozen already", "envoy is frozen already", func(_ testing.TB, s *topologytest.Stack) { s.Freeze("envoy"); s.Freeze("envoy") }},
		{"no disk", "Options.Disk is not set", func(_ testing.TB, s *topologytest.Stack) { s.FillDisk("n1") }},
		{"hangs already", "it does so already", func(_ testing.TB, s *topologytest.Stack) { s.HangPromote("n1"); s.HangPromote("n1") }},
		{"one server", "Options.Members makes more", func(_ testing.TB, s *topologytest.Stack) { s.MoveStoreLeader() }},
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

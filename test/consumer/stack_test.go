package consumer_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgconvoy/pgconvoy/topology"
	"github.com/pgconvoy/pgconvoy/topology/ledger"
	"github.com/pgconvoy/pgconvoy/topology/topologytest"
)

// TestOrdersSurviveFailover is the test of an application, on a smaller stack than the default.
func TestOrdersSurviveFailover(t *testing.T) {
	s := topologytest.Start(t, topologytest.Options{
		Spec: topology.Spec{Nodes: topology.NodesNamed(2), Poolers: topology.PoolersNamed(2, 1)},
	})
	order(t, s.WriteDSN(), 1)

	l := s.Write(t, ledger.Load{Writers: 10})
	l.Await(500)
	old := s.Leader()
	s.Kill(s.Primary())
	s.Await(func(v topology.View) bool { return topologytest.Routed(v) && v.Leadership.Member != old })
	l.Await(500)
	r := l.Stop()
	t.Logf("\n%v", r)
	if r.Lost > 0 || r.Surplus > 0 || r.Back > 0 || r.Stale > 0 {
		t.Errorf("%d acknowledged transactions are lost, %d rows are there that should not be", r.Lost, r.Surplus)
		t.Errorf("%d transactions saw an older timeline, %d were accepted by the old primary", r.Back, r.Stale)
	}
	if r.Failed > r.Writers {
		t.Errorf("%d transactions failed (%v), %d clients had one each under way", r.Failed, r.BySQLState, r.Writers)
	}
	if n := order(t, s.WriteDSN(), 2); n != 2 {
		t.Errorf("there are %d orders, want 2", n)
	}
}

// order places an order as the application does, and returns how many there are.
func order(t *testing.T, dsn string, id int) (n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, "CREATE TABLE IF NOT EXISTS orders (id int PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(ctx, "INSERT INTO orders VALUES ($1)", id); err != nil {
		t.Fatal(err)
	}
	if err := conn.QueryRow(ctx, "SELECT count(*) FROM orders").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

package orders

import (
	"errors"
	"os"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgconvoy/pgconvoy/topology"
	"github.com/pgconvoy/pgconvoy/topology/topologytest"
)

// shared is the stack of all tests in this package.
var shared topologytest.Shared

func TestMain(m *testing.M) { os.Exit(shared.Main(m)) }

// TestSwitchover: another node becomes the primary while customers order. No attempt fails.
func TestSwitchover(t *testing.T) {
	s := shared.Start(t)
	pool := open(t, s, nil)
	shop := &Shop{Pool: pool, Retry: func(err error) { t.Errorf("an attempt failed: %v", err) }}
	c := crowd(t, shop)
	c.await(t, 100)
	report, err := s.Do(t.Context(), topology.Switchover{})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(report)
	c.await(t, 100)
	checkBooks(t, pool, c.leave())
}

// TestCrash: the primary dies while customers order. What was under way is done again, and is there once.
func TestCrash(t *testing.T) {
	s := shared.Start(t)
	pool := open(t, s, nil)
	var again atomic.Int64
	c := crowd(t, &Shop{Pool: pool, Retry: func(error) { again.Add(1) }})
	c.await(t, 100)
	old := s.Leader()
	s.Kill(s.Primary()) // -9
	s.Await(func(v topology.View) bool { return topologytest.Routed(v) && v.Leadership.Member != old })
	c.await(t, 100)
	n := c.leave()
	t.Logf("%d attempts for %d orders were made again", again.Load(), n)
	checkBooks(t, pool, n)
}

// TestUnknownItem: what will never succeed is not tried again.
func TestUnknownItem(t *testing.T) {
	shop := &Shop{
		Pool:  open(t, shared.Start(t), nil),
		Retry: func(err error) { t.Fatalf("tried again after %v", err) },
	}
	err := shop.Place(t.Context(), "an order", "chair")
	if pg, ok := errors.AsType[*pgconn.PgError](err); !ok || pg.Code != "23503" {
		t.Errorf("%v, want a violated foreign key", err)
	}
}

const supply = 1_000_000 // of lamps

// open makes the application's pool and tables.
func open(t *testing.T, s *topologytest.Stack, tracer pgx.QueryTracer) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(s.WriteDSN())
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = customers
	config.ConnConfig.Tracer = tracer
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if _, err := pool.Exec(t.Context(), schema); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), "INSERT INTO stock VALUES ('lamp', $1)", supply); err != nil {
		t.Fatal(err)
	}
	return pool
}

// checkBooks compares what is there with what customers were told.
func checkBooks(t *testing.T, pool *pgxpool.Pool, placed int) {
	t.Helper()
	var orders, sold int
	const books = "SELECT (SELECT count(*) FROM orders), $1 - pieces FROM stock WHERE item = 'lamp'"
	if err := pool.QueryRow(t.Context(), books, supply).Scan(&orders, &sold); err != nil {
		t.Fatal(err)
	}
	if orders != placed || sold != placed {
		t.Errorf("%d orders are there and %d lamps are gone, want %d of each", orders, sold, placed)
	}
}

package orders

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgconvoy/pgconvoy/topology/topologytest"
)

// TestLostAnswer: an order was placed, the answer was lost, and the attempt that follows finds the order.
func TestLostAnswer(t *testing.T) {
	s := shared.Start(t)
	gate := newGate()
	shop := &Shop{Pool: open(t, s, gate)}
	loseAnswer(t, s, gate, func(ctx context.Context) error { return shop.Place(ctx, "my order", "lamp") })
	checkBooks(t, shop.Pool, 1)
	var commits int
	if err := shop.Pool.QueryRow(t.Context(), "SELECT commits FROM orders").Scan(&commits); err != nil || commits != 2 {
		t.Errorf("the order was committed %d times, want 2 (%v)", commits, err)
	}
}

// TestLostAnswerWithoutKey shows the bug: the same customer, who ordered once, gets two lamps.
func TestLostAnswerWithoutKey(t *testing.T) {
	s := shared.Start(t)
	gate := newGate()
	shop := &Shop{Pool: open(t, s, gate)}
	loseAnswer(t, s, gate, shop.placeBlindly)
	checkBooks(t, shop.Pool, 2)
}

// placeBlindly is the way in which it is often written: a transaction that failed is sent again. That is right for one
// that surely failed, and wrong for one of which nobody knows.
func (s *Shop) placeBlindly(ctx context.Context) error {
	return s.retry(ctx, func(ctx context.Context) error {
		return pgx.BeginFunc(ctx, s.Pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "INSERT INTO orders (item) VALUES ('lamp')"); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "UPDATE stock SET pieces = pieces - 1 WHERE item = 'lamp'")
			return err
		})
	})
}

// loseAnswer runs place, has its first COMMIT carried out, and breaks the connection before the answer is there.
func loseAnswer(t *testing.T, s *topologytest.Stack, g *gate, place func(ctx context.Context) error) {
	t.Helper()
	direct, err := pgx.Connect(t.Context(), s.DirectDSN(s.Leader())) // past the link that will be broken
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = direct.Close(context.WithoutCancel(t.Context())) }() // nothing is lost with it

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	placed := make(chan error, 1)
	wg.Go(func() { placed <- place(ctx) })
	select {
	case <-g.reached:
	case err := <-placed:
		t.Fatalf("no COMMIT was sent: %v", err)
	}

	deaf := s.HalfOpen("client", "envoy", topologytest.Backward)
	close(g.open)
	for committed := false; !committed; {
		if err := direct.QueryRow(ctx, "SELECT count(*) > 0 FROM orders").Scan(&committed); err != nil {
			t.Fatal(err)
		}
	}
	heal := s.Cut("client", "envoy")
	deaf()
	heal()

	if err := <-placed; err != nil {
		t.Fatal(err)
	}
}

// gate is a tracer that stops the application right before its first COMMIT, until it is opened.
type gate struct {
	once          sync.Once
	reached, open chan struct{}
}

func newGate() *gate { return &gate{reached: make(chan struct{}), open: make(chan struct{})} }

// TraceQueryStart implements [pgx.QueryTracer].
func (g *gate) TraceQueryStart(ctx context.Context, _ *pgx.Conn, q pgx.TraceQueryStartData) context.Context {
	if q.SQL == "commit" {
		g.once.Do(func() {
			close(g.reached)
			select {
			case <-g.open:
			case <-ctx.Done():
			}
		})
	}
	return ctx
}

// TraceQueryEnd implements [pgx.QueryTracer].
func (g *gate) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

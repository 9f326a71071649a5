package pooler_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconvoy/pgconvoy/pooler"
)

// opened is a Connect that hands out console connections made before: a PgBouncer that shuts down takes no new ones.
func opened(t *testing.T, pb *bouncer, n int) pooler.Connect {
	t.Helper()
	var mu sync.Mutex
	var conns []*pgconn.PgConn
	for range n {
		c, err := pb.console()(within(t, 30*time.Second))
		must(t, err)
		conns = append(conns, c)
	}
	t.Cleanup(func() {
		for _, c := range conns {
			_ = c.Close(context.Background())
		}
	})
	return func(context.Context) (*pgconn.PgConn, error) {
		mu.Lock()
		defer mu.Unlock()
		if len(conns) == 0 {
			return nil, errors.New("no connection left")
		}
		c := conns[0]
		conns = conns[1:]
		return c, nil
	}
}

// While SHUTDOWN WAIT_FOR_CLIENTS runs, databases that are paused one by one can be routed; a global pause cannot be
// undone and is said so.
func TestRouteDuringShutdown(t *testing.T) {
	a, b := servers(t)
	entries := []pooler.Entry{db("app", a, nil)}
	t.Run("database", func(t *testing.T) {
		pb := startBouncer(t, pooler.Ini{Databases: entries}, nil)
		ctx := within(t, time.Minute)
		c := pb.client("app")
		_, err := ask(c, "SELECT 1")
		must(t, err)
		local := pb.local()
		local.Connect, local.Databases = opened(t, pb, 4), []string{"app"}
		shutdown(t, pb)
		must(t, local.Hold(ctx))
		must(t, local.Route(ctx, target("m", b)))
		if who, err := ask(c, "SELECT name FROM who"); err != nil || who != "b" {
			t.Errorf("after Route: %q, %v", who, err)
		}
	})
	t.Run("global", func(t *testing.T) {
		pb := startBouncer(t, pooler.Ini{Databases: entries}, nil)
		ctx := within(t, time.Minute)
		_, err := ask(pb.client("app"), "SELECT 1")
		must(t, err)
		local := pb.local()
		must(t, local.Hold(ctx))
		local.Connect = opened(t, pb, 2)
		shutdown(t, pb)
		if err := local.Route(ctx, target("m", b)); !errors.Is(err, pooler.ErrShuttingDown) {
			t.Errorf("Route: %v, want ErrShuttingDown", err)
		}
		st, err := local.State(ctx)
		must(t, err)
		if !st.Held || !st.Target.SameHosts(target("", b)) {
			t.Errorf("after that: %+v, want held on the new target", st)
		}
	})
}

func shutdown(t *testing.T, pb *bouncer) {
	t.Helper()
	ctx := within(t, 30*time.Second)
	c, err := pooler.Open(ctx, pb.console())
	must(t, err)
	defer c.Close()
	must(t, c.Exec(ctx, "SHUTDOWN", "WAIT_FOR_CLIENTS"))
}

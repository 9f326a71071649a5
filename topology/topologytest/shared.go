package topologytest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconvoy/pgconvoy/topology"
)

// Shared is one stack for the tests of a package, which take turns: a start costs seconds, a reset does not. The zero
// value is ready, as a variable of the test package:
//
//	var shared topologytest.Shared
//
//	func TestMain(m *testing.M) { os.Exit(shared.Main(m)) }
//
//	func TestOrders(t *testing.T) {
//		s := shared.Start(t)
//		...
//	}
//
// Between two tests all faults are undone, the stack gets whole again, and all that the application's user owns in its
// database is dropped. Patroni's configuration and what a superuser made stay as they are. After a test that failed the
// next one gets a new stack.
type Shared struct {
	Options Options

	turn sync.Mutex // held by the test whose turn it is
	u    *running   // nil: none yet
}

// Main runs the tests of a package and stops the stack. The result is for os.Exit.
func (s *Shared) Main(m *testing.M) int {
	code := m.Run()
	s.turn.Lock()
	defer s.turn.Unlock()
	if s.u == nil {
		return code
	}
	end := &verdict{}
	s.u.end(end)
	if end.failed {
		return max(code, 1)
	}
	return code
}

// Start waits for the test's turn, which lasts until the test ends, and gives it the stack.
func (s *Shared) Start(t testing.TB) *Stack {
	t.Helper()
	s.turn.Lock()
	t.Cleanup(s.turn.Unlock)
	if s.u != nil {
		began := time.Now()
		if err := s.u.reset(t.Context()); err != nil {
			t.Logf("topologytest: the shared stack is replaced, it could not be reset: %v", err)
			s.end(t)
		} else {
			t.Logf("topologytest: the shared stack was reset in %v", time.Since(began).Round(time.Millisecond))
		}
	}
	if s.u == nil {
		requirePrograms(t, s.Options)
		var err error
		if s.u, err = launch(t.Context(), s.Options, "shared"); err != nil {
			s.end(t)
			t.Fatalf("%v", err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			s.end(t) // with its logs
		}
	})
	return s.u.handle(t)
}

func (s *Shared) end(t testing.TB) {
	t.Helper()
	if s.u != nil {
		s.u.end(t)
		s.u = nil
	}
}

// reset makes the stack as good as new.
func (u *running) reset(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, u.o.limit())
	defer cancel()
	var primary string
	if err := u.await(ctx, func(v topology.View) bool {
		primary = v.Leadership.Member
		return u.whole(v)
	}); err != nil {
		return err
	}
	for _, p := range u.r.Spec().Poolers { // no server connection with a plan for what was there
		if err := exec(ctx, u.r.AdminDSN(p.Name), "RECONNECT"); err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	return u.drop(ctx, primary)
}

// drop removes what the application's user owns.
func (u *running) drop(ctx context.Context, primary string) error {
	config, err := pgx.ParseConfig(u.r.SuperuserDSN(primary))
	if err != nil {
		return err
	}
	config.Database = u.r.Spec().Database
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	user := pgx.Identifier{u.r.Spec().Database}.Sanitize()
	for i := range 3 {
		_, err = conn.Exec(ctx, "SET lock_timeout = '500ms'; DROP OWNED BY "+user+" CASCADE")
		if pg, ok := errors.AsType[*pgconn.PgError](err); !ok || pg.Code != "55P03" || i == 2 { // lock_not_available
			return err
		}
		// Somebody's transaction was left open.
		if _, err := conn.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", u.r.Spec().Database); err != nil {
			return err
		}
	}
	return err
}

func exec(ctx context.Context, dsn, sql string) error {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return err
	}
	config.RuntimeParams = nil
	conn, err := pgconn.ConnectConfig(ctx, &config.Config)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, sql).ReadAll()
	return errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
}

// verdict stands in for a test where there is none any more.
type verdict struct {
	testing.TB
	failed bool
}

func (v *verdict) Helper()      {}
func (v *verdict) Failed() bool { return v.failed }

func (v *verdict) Errorf(format string, args ...any) {
	v.failed = true
	v.Logf(format, args...)
}

func (v *verdict) Logf(format string, args ...any) { fmt.Printf(format+"\n", args...) }

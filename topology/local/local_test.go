package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgconvoy/pgconvoy/dcs/embedded"
	"github.com/pgconvoy/pgconvoy/internal/leak"
	"github.com/pgconvoy/pgconvoy/topology"
	"github.com/pgconvoy/pgconvoy/topology/ledger"
)

// requirePrograms skips a test where the programs are missing, with the reason; in CI that is a failure.
func requirePrograms(t testing.TB) {
	t.Helper()
	if _, _, err := (Binaries{}).Find(t.Context()); err != nil {
		if os.Getenv("PGCONVOY_REQUIRE") == "1" {
			t.Fatal(err)
		}
		t.Skipf("the programs of a stack are missing (make setup installs them): %v", err)
	}
}

// run runs a stack for a test and checks that nothing of it is left.
func run(t *testing.T, r Runner, spec topology.Spec, fn func(ctx context.Context, s *Stack) error) {
	t.Helper()
	requirePrograms(t)
	leak.Check(t)
	tmp := openTempDir(t)
	t.Setenv("TMPDIR", tmp)
	r.Progress = func(what string) { t.Logf("waiting for %s", what) }
	defer checkClean(t, tmp) // also after a panic
	if err := r.Run(t.Context(), spec, fn); err != nil {
		t.Error(err)
	}
}

// openTempDir is a temporary folder that the databases' user can get to.
func openTempDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func checkClean(t *testing.T, tmp string) {
	t.Helper()
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("files are left: %v %v", left, err)
	}
	if left := processesOf(t, tmp); len(left) > 0 {
		t.Errorf("processes are left: %v", left)
	}
}

// processesOf lists the processes that have a folder's name in their command line or work in it.
func processesOf(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, e := range entries {
		cmdline, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil || e.Name() == fmt.Sprint(os.Getpid()) {
			continue
		}
		cwd, _ := os.Readlink(filepath.Join("/proc", e.Name(), "cwd")) // gone meanwhile
		if strings.Contains(string(cmdline), dir) || strings.HasPrefix(cwd, dir) {
			found = append(found, e.Name()+" "+strings.ReplaceAll(string(cmdline), "\x00", " "))
		}
	}
	return found
}

// TestStack is the whole path under load: a planned switchover, one typed by hand past the coordinator, a crash of the
// primary, and what an application sees of each.
func TestStack(t *testing.T) {
	run(t, Runner{}, topology.Spec{}, func(ctx context.Context, s *Stack) error {
		t.Run("entry points", func(t *testing.T) { testEntryPoints(ctx, t, s) })
		t.Run("planned switchover", func(t *testing.T) {
			for range 3 {
				r := underLoad(ctx, t, s, func() error {
					report, err := s.Do(ctx, topology.Switchover{})
					t.Log(report)
					return err
				})
				if r.Failed > 0 {
					t.Errorf("%d of %d transactions failed (%s), want 0", r.Failed, r.Sent, r.FirstError)
				}
			}
		})
		t.Run("switchover by hand", func(t *testing.T) {
			r := underLoad(ctx, t, s, func() error {
				v := s.View(ctx)
				old := v.Leadership.Member
				api, to := "", ""
				for _, m := range v.Members {
					if m.Name == old {
						api = m.API
					}
					if m.Sync {
						to = m.Name
					}
				}
				if err := s.Patroni().Switchover(ctx, api, old, to); err != nil {
					return err
				}
				return s.Await(ctx, func(v topology.View) bool { return v.Leadership.Member == to && v.Routed() })
			})
			if r.Failed > 0 {
				t.Errorf("%d of %d transactions failed (%s), want 0: the before-stop hook holds the fleet", r.Failed, r.Sent, r.FirstError)
			}
		})
		t.Run("primary killed", func(t *testing.T) {
			for range 2 {
				r := underLoad(ctx, t, s, func() error {
					old := s.View(ctx).Leadership.Member
					if err := s.Signal(old+"/postgres", syscall.SIGKILL); err != nil {
						return err
					}
					return s.Await(ctx, func(v topology.View) bool { return v.Leadership.Member != old && v.Routed() })
				})
				if r.Failed > r.Writers {
					t.Errorf("%d transactions failed (%v), more than the %d that were in flight", r.Failed, r.BySQLState, r.Writers)
				}
			}
		})
		t.Run("refused", func(t *testing.T) {
			primary := s.View(ctx).Leadership.Member
			_, err := s.Do(ctx, topology.Switchover{To: primary})
			if refused, ok := errors.AsType[*topology.RefusedError](err); !ok || !strings.Contains(err.Error(), primary+" is the primary already") {
				t.Errorf("switchover to the primary: %v %v, want a refusal that says so", err, refused)
			}
		})
		return nil
	})
}

// TestOwnEtcd: a small stack on an etcd of the caller's takes a free path and leaves nothing there.
func TestOwnEtcd(t *testing.T) {
	server, err := embedded.Start(t.Context(), embedded.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	}()
	runner := Runner{Etcd: []string{strings.TrimPrefix(server.Endpoint(), "http://")}}
	spec := topology.Spec{Path: "/own/shop", Nodes: topology.NodesNamed(1), Poolers: topology.PoolersNamed(1, 0)}
	run(t, runner, spec, func(ctx context.Context, s *Stack) error {
		if err := ping(ctx, s.WriteDSN()); err != nil {
			t.Error(err)
		}
		second := Runner{Etcd: runner.Etcd}
		err := second.Run(ctx, spec, func(context.Context, *Stack) error { return nil })
		if err == nil || !strings.Contains(err.Error(), "/own/shop is in use") {
			t.Errorf("a second cluster at the same path: %v, want an error that says so", err)
		}
		return nil
	})
	left, err := server.Store().Get(t.Context(), "/own")
	if err != nil {
		t.Fatal(err)
	}
	for e := range left.All("/own") {
		t.Errorf("%s is left in the store", e.Key)
	}
}

// underLoad runs an event while clients write, from a whole stack to a whole stack, and proves that nothing was lost.
func underLoad(ctx context.Context, t testing.TB, s *Stack, event func() error) ledger.Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := s.Await(ctx, s.Ready); err != nil {
		t.Fatal(err)
	}
	var load ledger.Load
	for _, n := range s.Spec().Nodes {
		load.Direct = append(load.Direct, s.DirectDSN(n.Name))
	}
	l, err := ledger.Start(ctx, s.WriteDSN(), load)
	if err != nil {
		t.Fatal(err)
	}
	awaitAcknowledged(ctx, t, l, 1000)
	err = event()
	if err == nil {
		awaitAcknowledged(ctx, t, l, 1000)
	}
	r, serr := l.Stop(ctx)
	if err := errors.Join(err, serr); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%v", r)
	if r.Lost > 0 || r.Surplus > 0 {
		t.Errorf("%d acknowledged transactions are lost and %d rows surplus, want none", r.Lost, r.Surplus)
	}
	return r
}

// awaitAcknowledged waits for n more acknowledged transactions.
func awaitAcknowledged(ctx context.Context, t testing.TB, l *ledger.Ledger, n int) {
	t.Helper()
	want := l.Now().Acknowledged + n
	for l.Now().Acknowledged < want {
		select {
		case <-ctx.Done():
			t.Fatalf("%+v: %v", l.Now(), context.Cause(ctx))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func testEntryPoints(ctx context.Context, t *testing.T, s *Stack) {
	for _, c := range []struct {
		name, dsn string
		recovery  bool
	}{{"write", s.WriteDSN(), false}, {"read", s.ReadDSN(), true}} {
		conn, err := pgx.Connect(ctx, c.dsn)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		var recovery bool
		err = conn.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&recovery)
		if err != nil || recovery != c.recovery {
			t.Errorf("%s service: in recovery %t, %v; want %t", c.name, recovery, err, c.recovery)
		}
		if err := conn.Close(ctx); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

package local

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/pgconvoy/pgconvoy/dcs/embedded"
	"github.com/pgconvoy/pgconvoy/internal/leak"
	"github.com/pgconvoy/pgconvoy/topology"
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
	tmp := leak.TempDir(t)
	t.Setenv("TMPDIR", tmp)
	r.Progress = func(what string) { t.Logf("waiting for %s", what) }
	defer checkClean(t, tmp) // also after a panic
	if err := r.Run(t.Context(), spec, fn); err != nil {
		t.Error(err)
	}
}

func checkClean(t *testing.T, tmp string) {
	t.Helper()
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("files are left: %v %v", left, err)
	}
	if left := leak.Processes(t, tmp); len(left) > 0 {
		t.Errorf("processes are left: %v", left)
	}
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
	byName := strings.Replace(server.Endpoint(), "http://127.0.0.1", "localhost", 1)
	runner := Runner{Etcd: []string{byName}}
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

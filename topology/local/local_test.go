package local

import (
	"context"
	"os"
	"testing"

	"github.com/pgconvoy/pgconvoy/internal/leak"
	"github.com/pgconvoy/pgconvoy/topology"
)

// requirePrograms skips a test where the programs are missing, with the reason; in CI that is a failure.
func requirePrograms(t testing.TB, stores ...string) {
	t.Helper()
	if _, _, err := (Binaries{}).Find(t.Context(), stores...); err != nil {
		if os.Getenv("PGCONVOY_REQUIRE") == "1" {
			t.Fatal(err)
		}
		t.Skipf("the programs of a stack are missing (scripts/setup --stores installs them): %v", err)
	}
}

// run runs a stack for a test and checks that nothing of it is left.
func run(t *testing.T, r Runner, spec topology.Spec, fn func(ctx context.Context, s *Stack) error) {
	t.Helper()
	leak.Check(t)
	runBeside(t, r, spec, fn)
}

// runBeside is run beside what starts goroutines of its own.
func runBeside(t *testing.T, r Runner, spec topology.Spec, fn func(ctx context.Context, s *Stack) error) {
	t.Helper()
	requirePrograms(t, r.DCS.Kind)
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

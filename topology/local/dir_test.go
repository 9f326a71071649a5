package local

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgconvoy/pgconvoy/internal/leak"
	"github.com/pgconvoy/pgconvoy/topology"
)

// TestDirKept: a stack in a folder of the caller's comes back with its data, on other ports.
func TestDirKept(t *testing.T) {
	r := Runner{Dir: filepath.Join(leak.TempDir(t), "stack")}
	spec := topology.Spec{Nodes: topology.NodesNamed(1), Poolers: topology.PoolersNamed(1, 1)}
	for _, sql := range []string{"CREATE TABLE kept AS SELECT 42 AS answer", "DROP TABLE kept"} {
		run(t, r, spec, func(ctx context.Context, s *Stack) error {
			conn, err := pgx.Connect(ctx, s.WriteDSN())
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close(ctx) }()
			_, err = conn.Exec(ctx, sql)
			return err
		})
	}
}

// TestPanic: a panic in the caller's function stops the stack and goes on.
func TestPanic(t *testing.T) {
	defer func() {
		if recover() != "mine" {
			t.Error("the panic did not go on")
		}
	}()
	run(t, Runner{}, topology.Spec{Nodes: topology.NodesNamed(1), Poolers: topology.PoolersNamed(1, 0)},
		func(context.Context, *Stack) error { panic("mine") })
}

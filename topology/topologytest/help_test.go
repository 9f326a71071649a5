package topologytest_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgconvoy/pgconvoy/topology"
	"github.com/pgconvoy/pgconvoy/topology/topologytest"
)

func contextFor(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithTimeout(t.Context(), d)
}

// query connects, asks and leaves.
func query(t *testing.T, dsn, sql string) error {
	t.Helper()
	ctx, cancel := contextFor(t, 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	_, err = conn.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
	return err
}

// await waits until a condition holds, and fails the test after a minute.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func streaming(v topology.View) int {
	n := 0
	for _, m := range v.Members {
		if m.Replication == "streaming" {
			n++
		}
	}
	return n
}

func pooler(v topology.View, name string) topology.PoolerView {
	for _, p := range v.Poolers {
		if p.Name == name {
			return p
		}
	}
	return topology.PoolerView{}
}

// apart runs a test of its own, which may fail, and returns how it ended.
func apart(t *testing.T, body func(tb testing.TB)) *ending {
	t.Helper()
	e := &ending{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		body(e)
	}()
	<-done
	for _, c := range slices.Backward(e.cleanups) {
		c()
	}
	return e
}

// ending is a test that says how it ended.
type ending struct {
	testing.TB
	how, said string
	cleanups  []func()
}

func (e *ending) Cleanup(c func())                  { e.cleanups = append(e.cleanups, c) }
func (e *ending) Fatalf(format string, args ...any) { e.end("failed", format, args) }
func (e *ending) Skipf(format string, args ...any)  { e.end("skipped", format, args) }

func (e *ending) end(how, format string, args []any) {
	e.how, e.said = how, fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// storeOf is a pattern for all servers of the store.
func storeOf(s *topologytest.Stack) string {
	if kind := s.DCS().Kind; kind == "consul" || kind == "zookeeper" {
		return kind + "-*"
	}
	return "etcd-*"
}

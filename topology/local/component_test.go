package local

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/topology"
)

// TestMain lets this program be what Runner.Roles names.
func TestMain(m *testing.M) {
	if ran, err := RunRole(context.Background()); ran {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestComponents takes every component of a stack down and up again, and freezes it: each is a process of its own.
func TestComponents(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	runner := Runner{Roles: []string{self}, Members: 3, Logs: t.TempDir()}
	spec := topology.Spec{Nodes: topology.NodesNamed(1), Poolers: topology.PoolersNamed(1, 0)}
	run(t, runner, spec, func(ctx context.Context, s *Stack) error {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
		defer cancel()
		want := []string{"cp-1", "envoy", "etcd-1", "etcd-2", "etcd-3", "n1", "n1/patroni", "n1/postgres", "pgb-1", "pgb-1/agent"}
		if got := s.Components(); !slices.Equal(got, want) {
			t.Errorf("components %q, want %q", got, want)
		}
		for _, c := range want {
			t.Run(strings.ReplaceAll(c, "/", "-"), func(t *testing.T) { testComponent(ctx, t, s, c) })
		}
		if err := s.Down(ctx, "n2", syscall.SIGKILL); err == nil || !strings.Contains(err.Error(), `no component "n2"`) || !strings.Contains(err.Error(), "n1/postgres") {
			t.Errorf("an unknown component: %v, want an error with its name and all names", err)
		}
		return nil
	})
}

func testComponent(ctx context.Context, t *testing.T, s *Stack, c string) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	refused := func(err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want an error with %q", err, want)
		}
	}
	must(s.Await(ctx, s.Ready))
	pid, err := s.PID(c)
	must(err)
	must(s.Freeze(c))
	if state := stateOf(t, pid); state != 'T' {
		t.Errorf("frozen, process %d is in state %c", pid, state)
	}
	refused(s.Freeze(c), c+" is frozen already")
	must(s.Thaw(c))
	refused(s.Thaw(c), c+" is not frozen")
	if state := stateOf(t, pid); state == 'T' {
		t.Errorf("thawed, process %d is stopped", pid)
	}
	if strings.HasSuffix(c, "/postgres") {
		refused(s.Down(ctx, c, syscall.SIGKILL), "cannot be kept down")
		return
	}
	must(s.Down(ctx, c, syscall.SIGKILL))
	if stateOf(t, pid) != 0 {
		t.Errorf("process %d is still there", pid)
	}
	refused(s.Down(ctx, c, syscall.SIGKILL), "is down")
	refused(s.Freeze(c), c+" is down")
	refused(s.Signal(c, syscall.SIGTERM), c+" is down")
	must(s.Up(ctx, c))
	refused(s.Up(ctx, c), "up already")
	must(s.Await(ctx, s.Ready))
	if now, err := s.PID(c); err != nil || now == pid {
		t.Errorf("process %d after %d, %v", now, pid, err)
	}
	must(s.Down(ctx, c, syscall.SIGTERM))
	must(s.Up(ctx, c))
}

// stateOf is the state of a process as the kernel has it; 0: it is gone.
func stateOf(t *testing.T, pid int) byte {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	if rest == "" || rest[0] == 'Z' {
		return 0
	}
	return rest[0]
}

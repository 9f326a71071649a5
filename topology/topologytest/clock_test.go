package topologytest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/topology/topologytest"
)

// clockPython is loaded by each Python of a stack: the clock of a node's Patroni is off by what a file beside its
// configuration says, in seconds.
const clockPython = `
import os, sys, time

_now = time.time
_file = os.path.join(os.path.dirname(sys.orig_argv[-1]), "clock-is-off-by")

def _off():
    try:
        with open(_file) as f:
            return float(f.read() or 0)
    except (OSError, ValueError):
        return 0.0

if sys.orig_argv[-1].endswith("patroni.yml"):
    time.time = lambda: _now() + _off()
`

// breakClocks makes it possible that clocks jump, in all stacks that are started after it.
func breakClocks() (undo func(), err error) {
	dir, err := os.MkdirTemp("", "pgconvoy-clock-")
	if err != nil {
		return nil, err
	}
	undo = func() { _ = os.RemoveAll(dir) } // a file of a test
	err = os.Chmod(dir, 0o755)              // Patroni may run as somebody else
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "sitecustomize.py"), []byte(clockPython), 0o644)
	}
	if err == nil {
		err = os.Setenv("PYTHONPATH", dir)
	}
	return undo, err
}

// clockJumps sets the clock of the primary's Patroni wrong, for longer than a loop, and right again.
func clockJumps(t *testing.T, s *topologytest.Stack, by time.Duration) {
	t.Helper()
	node := s.Leader()
	file := clockOf(t, s, node)
	if err := os.WriteFile(file, fmt.Append(nil, by.Seconds()), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(file) }) // it may be gone
	wait(t, hold(6*time.Second, 30*time.Second))
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
}

// clockOf is the file that sets the clock of a node's Patroni.
func clockOf(t *testing.T, s *topologytest.Stack, node string) string {
	t.Helper()
	pid, err := s.PID(node + "/patroni")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "clock-is-off-by")
}

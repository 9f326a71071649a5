//go:build linux

package proc

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/leak"
)

// patience is what a busy machine may take for what takes milliseconds.
const patience = time.Minute

// within is a context for what must not take long.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// kept is a keeper of a shell script whose processes can be told from all others. The script works in dir.
type kept struct {
	*Keeper
	t      *testing.T
	dir    string
	ups    chan int
	cancel context.CancelFunc
	done   chan error
}

// prepare makes a keeper that does not run. The end of the test ends all of its processes.
func prepare(t *testing.T, script string) *kept {
	t.Helper()
	leak.Check(t)
	dir := t.TempDir()
	k := &kept{t: t, dir: dir, ups: make(chan int, 1000), done: make(chan error, 1)}
	k.Keeper = &Keeper{
		Starter: NewStarter(), Up: func(pid int) { k.ups <- pid },
		Command: Command{
			Name: "prog", Path: "/bin/sh", Args: []string{"-c", script}, Dir: dir, Log: filepath.Join(dir, "log"),
			Env: []string{"PROC_TEST=" + dir}, Grace: patience,
		},
	}
	t.Cleanup(func() {
		if k.cancel != nil {
			_ = k.end() // a test that minds ends it
		}
		k.Starter.Close()
		all, _ := halt(k.family()) // orphans
		kill(all)
		if t.Failed() {
			t.Logf("log: %s", Tail(k.Command.Log, 20))
		}
	})
	return k
}

// underTini makes the script the program that tini runs: orphans become tini's.
func (k *kept) underTini() *kept {
	k.t.Helper()
	tini, err := exec.LookPath(filepath.Join(os.Getenv("PGCONVOY_HOME"), "bin", "tini"))
	if err != nil {
		tini, err = exec.LookPath("tini")
	}
	if err != nil {
		if os.Getenv("PGCONVOY_REQUIRE") == "1" {
			k.t.Fatal("tini is not installed although PGCONVOY_REQUIRE=1: run `make setup`")
		}
		k.t.Skip("tini is not installed: run `make setup`")
	}
	c := &k.Command
	c.Path, c.Args = tini, append([]string{"-s", "--", c.Path}, c.Args...)
	return k
}

// run begins to keep the program.
func (k *kept) run() *kept {
	ctx, cancel := context.WithCancel(context.Background())
	k.cancel = cancel
	go func() { k.done <- k.Run(ctx) }()
	return k
}

// end ends Run.
func (k *kept) end() error {
	k.cancel()
	err := <-k.done
	k.done <- err
	return err
}

// up is the process of the next start.
func (k *kept) up() int {
	k.t.Helper()
	select {
	case pid := <-k.ups:
		return pid
	case err := <-k.done:
		k.done <- err
		k.t.Fatalf("Run has ended: %v", err)
	case <-time.After(patience):
		k.t.Fatal("it does not start")
	}
	return 0
}

// wrote waits until the script has written a line into a file, and returns it.
func (k *kept) wrote(file string) string {
	k.t.Helper()
	var line string
	eventually(k.t, file+" is written", func() bool {
		b, _ := os.ReadFile(filepath.Join(k.dir, file)) // not there: not yet
		var whole bool
		line, _, whole = strings.Cut(string(b), "\n")
		return whole
	})
	return line
}

// wrotePID is as wrote for a process.
func (k *kept) wrotePID(file string) int {
	k.t.Helper()
	pid, err := strconv.Atoi(k.wrote(file))
	if err != nil {
		k.t.Fatal(err)
	}
	return pid
}

func (k *kept) exists(file string) bool {
	_, err := os.Stat(filepath.Join(k.dir, file))
	return err == nil
}

// family are the processes that descend from the program, wherever they went.
func (k *kept) family() []process {
	var all []process
	for _, s := range everybody() {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", s.pid))
		if err == nil && bytes.Contains(b, []byte("PROC_TEST="+k.dir+"\x00")) {
			all = append(all, s.process)
		}
	}
	return present(all)
}

func (k *kept) want(s State) {
	k.t.Helper()
	if got := k.State(); got != s {
		k.t.Errorf("it is %s, want %s", got, s)
	}
}

// wantError checks that an error says something.
func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v, want %q in it", err, part)
		}
	}
}

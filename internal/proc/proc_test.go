//go:build linux

package proc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func shell(t *testing.T, script string) Command {
	t.Helper()
	return Command{Name: "test", Path: "/bin/sh", Args: []string{"-c", script}, Log: filepath.Join(t.TempDir(), "log")}
}

func TestStop(t *testing.T) {
	s := NewStarter()
	defer s.Close()
	for name, c := range map[string]struct {
		script string
		grace  time.Duration
		killed bool
	}{
		"gentle":   {script: "exec sleep 1000"},
		"stubborn": {script: "trap '' TERM; echo deaf; while :; do sleep 1000; done", grace: 200 * time.Millisecond, killed: true},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := shell(t, c.script)
			cmd.Grace = c.grace
			p, err := s.Start(cmd)
			if err != nil {
				t.Fatal(err)
			}
			for c.killed && !strings.Contains(Tail(cmd.Log, 1), "deaf") { // until the trap is set
				time.Sleep(time.Millisecond)
			}
			if err := p.Stop(); (err != nil) != c.killed {
				t.Errorf("Stop: %v, killed %t", err, c.killed)
			}
			// What the program had started is reaped by somebody else.
			for deadline := time.Now().Add(10 * time.Second); syscall.Kill(-p.PID, 0) == nil; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("the program's group is still there")
				}
			}
		})
	}
}

func TestSuperviseRestarts(t *testing.T) {
	s := NewStarter()
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	pids := make(chan int, 10)
	done := make(chan error, 1)
	go func() { done <- s.Supervise(ctx, shell(t, "exec sleep 1000"), func(pid int) { pids <- pid }) }()
	first := <-pids
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	second := <-pids
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Supervise: %v", err)
	}
	for _, pid := range []int{first, second} {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("process %d is still there: %v", pid, err)
		}
	}
}

func TestSuperviseGivesUp(t *testing.T) {
	s := NewStarter()
	defer s.Close()
	starts := 0
	err := s.Supervise(t.Context(), shell(t, "echo this is why >&2; exit 3"), func(int) { starts++ })
	if err == nil || !strings.Contains(err.Error(), "this is why") || !strings.Contains(err.Error(), "exit status 3") || starts != 5 {
		t.Errorf("after %d starts: %v, want 5 and an error with the log's end and the exit status", starts, err)
	}
	cmd := shell(t, "")
	cmd.Path = "/nowhere/program"
	if err := s.Supervise(t.Context(), cmd, func(int) {}); err == nil || !strings.Contains(err.Error(), "/nowhere/program") {
		t.Errorf("a missing program: %v", err)
	}
}

// TestDeath: a started program ends when its owner is killed, whatever threads the owner had. The owner is this test
// binary, run again.
func TestDeath(t *testing.T) {
	if os.Getenv("PROC_TEST_OWNER") == "1" {
		s := NewStarter()
		p, err := s.Start(Command{Name: "child", Path: "/bin/sleep", Args: []string{"1000"}, Log: os.DevNull})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println(p.PID)
		_, _ = io.Copy(io.Discard, os.Stdin) // until killed
		return
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	owner := exec.CommandContext(t.Context(), exe, "-test.run", "^TestDeath$")
	owner.Env = append(os.Environ(), "PROC_TEST_OWNER=1")
	stdin, err1 := owner.StdinPipe()
	stdout, err2 := owner.StdoutPipe()
	if err := errors.Join(err1, err2, owner.Start()); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stdin.Close() }()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait() // killed, as asked
	for deadline := time.Now().Add(10 * time.Second); running(pid); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d outlives its owner", pid)
		}
	}
}

// running reports whether a process is there and not just waiting to be reaped.
func running(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(rest, "Z")
}

//go:build linux

package proc

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

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
	eventually(t, fmt.Sprintf("process %d ends with its owner", pid), func() bool { return len(present(descent(pid))) == 0 })
}

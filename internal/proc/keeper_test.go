//go:build linux

package proc

import (
	"syscall"
	"testing"
	"time"
)

func TestRunStops(t *testing.T) {
	k := prepare(t, "exec sleep 1000").run()
	pid := k.up()
	if k.PID() != pid {
		t.Errorf("PID is %d, Up was told %d", k.PID(), pid)
	}
	k.want(Running)
	if err := k.end(); err != nil {
		t.Errorf("Run: %v", err)
	}
	k.want(Over)
	if left := k.family(); len(left) > 0 || k.PID() != 0 {
		t.Errorf("%v is left, PID is %d", left, k.PID())
	}
}

// What does not end within its grace is killed, with all that it has started.
func TestRunKills(t *testing.T) {
	k := prepare(t, "trap '' TERM; setsid sleep 1000 & echo $! >deaf; wait; sleep 1000")
	k.Command.Grace = 100 * time.Millisecond
	k.run().wrote("deaf")
	wantError(t, k.end(), "prog did not end within 100ms and was killed", k.Command.Log)
	if left := k.family(); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}

func TestRunRestarts(t *testing.T) {
	k := prepare(t, "exec sleep 1000").run()
	first := k.up()
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if second := k.up(); second == first {
		t.Errorf("process %d is told of twice", first)
	}
	if err := k.end(); err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestRunGivesUp(t *testing.T) {
	k := prepare(t, "echo this is why >&2; exit 3").run()
	err := <-k.done
	k.done <- err
	wantError(t, err, "prog (/bin/sh) ends as soon as it is started", "this is why", "exit status 3")
	if n := len(k.ups); n != 5 {
		t.Errorf("%d starts, want 5", n)
	}
	k.want(Over)
	wantError(t, k.Down(within(t, patience), syscall.SIGKILL), "prog is not run any more", "this is why")
}

func TestRunWithoutAProgram(t *testing.T) {
	k := prepare(t, "")
	k.Command.Path = "/nowhere/program"
	wantError(t, k.Run(t.Context()), "/nowhere/program does not start")
}

// What a signal ends does not count as broken, however often and soon.
func TestSignal(t *testing.T) {
	k := prepare(t, "trap 'echo yes >usr1' USR1; echo >ready; while :; do sleep 1000 & wait $!; done").run()
	k.up()
	k.wrote("ready")
	if err := k.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	k.wrote("usr1")
	for range earlyEnds + 1 {
		if err := k.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for _, p := range k.family() { // its sleep
			_ = p.signal(syscall.SIGKILL)
		}
		k.up()
	}
}

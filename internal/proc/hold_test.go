//go:build linux

package proc

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// node is a tree like that of a Patroni: a launcher, a manager, and a database that is no child of theirs any more and
// has a session of its own, with a child. Under tini all of them descend from it.
const node = `sh -c '
	setsid sh -c "echo \$\$ >database; sleep 1000 & echo >ready; wait" &
' &
wait $!
sleep 1000 & wait`

func TestDownAndStart(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			k := prepare(t, node).underTini().run()
			first := k.up()
			k.wrote("ready")
			eventually(t, "the database is tini's", func() bool { return slices.Contains(Tree(first), k.wrotePID("database")) })
			if tree, family := Tree(first), k.family(); tree[0] != first || len(tree) != len(family) || len(tree) != 5 {
				t.Errorf("the tree of %d is %v, its family %v", first, tree, family)
			}
			if err := k.Down(within(t, patience), sig); err != nil {
				t.Fatal(err)
			}
			if left := k.family(); len(left) > 0 {
				t.Errorf("%v is left", left)
			}
			k.want(Held)
			if k.PID() != 0 {
				t.Errorf("PID is %d", k.PID())
			}
			if err := k.Start(within(t, patience)); err != nil {
				t.Fatal(err)
			}
			k.want(Running)
			if second := k.up(); second == first || second != k.PID() || len(k.ups) > 0 {
				t.Errorf("process %d after %d, and %d more", second, first, len(k.ups))
			}
		})
	}
}

// Nobody sees another's end: neither a parent its child's nor a child its parent's.
func TestDownAtOnce(t *testing.T) {
	const witnesses = `set -m # each in a group of its own, which the kernel wakes when its parent has ended
	child='trap "echo hup >>seen" HUP; while read -r _ _ _ parent _ </proc/self/stat; do
		[ $parent = '$$' ] || { echo child >>seen; exit; }
		[ -e ready ] || echo >ready
	done'
	sh -c "$child" & one=$!
	sh -c "$child" &
	wait $one; echo parent >>seen`
	k := prepare(t, witnesses).run()
	for range 20 {
		k.up()
		k.wrote("ready")
		if err := k.Down(within(t, patience), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if k.exists("seen") {
			t.Fatalf("seen by %s", k.wrote("seen"))
		}
		if err := os.Remove(filepath.Join(k.dir, "ready")); err != nil {
			t.Fatal(err)
		}
		if err := k.Start(within(t, patience)); err != nil {
			t.Fatal(err)
		}
	}
}

// Nobody escapes who is being started meanwhile.
func TestDownOfWhatForks(t *testing.T) {
	k := prepare(t, `while :; do (setsid sh -c "sleep 0.01; exec sleep 0.01" &) ; : >>ready; done`).underTini().run()
	for range 10 {
		k.up()
		eventually(t, "it starts others", func() bool { return k.exists("ready") })
		if err := k.Down(within(t, patience), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if left := k.family(); len(left) > 0 {
			t.Fatalf("%v has escaped", left)
		}
		if err := k.Start(within(t, patience)); err != nil {
			t.Fatal(err)
		}
	}
}

// A program that does not hear stays up, and stays down once it has ended.
func TestDownInVain(t *testing.T) {
	const deaf = "trap '' TERM; echo >deaf; while [ ! -e go ]; do sleep 0.01; done"
	k := prepare(t, deaf).run()
	pid := k.up()
	k.wrote("deaf")
	err := k.Down(within(t, 10*time.Millisecond), syscall.SIGTERM)
	wantError(t, err, "prog (process ", "has not ended in time", "deadline exceeded")
	k.want(Ending)
	if k.PID() != pid {
		t.Errorf("PID is %d, was %d", k.PID(), pid)
	}
	wantError(t, k.Start(within(t, patience)), "has not ended yet")
	if err := os.WriteFile(filepath.Join(k.dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is down", func() bool { return k.State() == Held })
	if err := os.Remove(filepath.Join(k.dir, "go")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(k.dir, "deaf")); err != nil {
		t.Fatal(err)
	}
	if err := k.Start(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	k.up()
	k.wrote("deaf")
	wantError(t, k.Down(within(t, 10*time.Millisecond), syscall.SIGTERM), "has not ended in time")
	if err := k.Down(within(t, patience), syscall.SIGKILL); err != nil {
		t.Errorf("SIGKILL after SIGTERM: %v", err)
	}
	k.want(Held)
	if len(k.ups) > 0 {
		t.Error("it was started although it is held down")
	}
}

func TestRunEndsWhileDown(t *testing.T) {
	k := prepare(t, "exec sleep 1000").run()
	k.up()
	if err := k.Down(within(t, patience), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	start := make(chan error, 1)
	if err := k.end(); err != nil {
		t.Errorf("Run: %v", err)
	}
	go func() { start <- k.Start(within(t, patience)) }()
	wantError(t, <-start, "prog is not run any more")
	wantError(t, k.Down(within(t, patience), syscall.SIGTERM), "prog is not run any more")
}

// What is down before Run begins is not started by it.
func TestDownBeforeRun(t *testing.T) {
	k := prepare(t, "exec sleep 1000")
	k.want(Starting)
	if err := k.Down(within(t, patience), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	wantError(t, k.Start(within(t, 10*time.Millisecond)), "prog has not started in time")
	if err := k.Down(within(t, patience), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	k.run()
	if err := k.Start(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	if k.up(); len(k.ups) > 0 {
		t.Error("it was started twice")
	}
}

// A start that fails ends Run, and says so to both.
func TestStartFails(t *testing.T) {
	k := prepare(t, "exec sleep 1000")
	program := filepath.Join(k.dir, "program")
	if err := os.Symlink("/bin/sh", program); err != nil {
		t.Fatal(err)
	}
	k.Command.Path = program
	k.run().up()
	if err := k.Down(within(t, patience), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	wantError(t, k.Start(within(t, patience)), "prog is not run any more", program+" does not start")
	wantError(t, <-k.done, program+" does not start")
	k.done <- nil
}

// A database whose manager is killed lives on, and still is one of the program's.
func TestLeave(t *testing.T) {
	k := prepare(t, "echo $$ >manager;"+node).underTini()
	var outlived atomic.Int64
	k.Also = func() []int { return []int{int(outlived.Load())} }
	k.run().up()
	k.wrote("ready")
	database := descent(k.wrotePID("database"))
	outlived.Store(int64(database[0].pid))
	wantError(t, k.Leave(within(t, patience), os.Getpid()), "is not one of prog")
	k.want(Running)
	if err := k.Leave(within(t, patience), k.wrotePID("manager")); err != nil {
		t.Fatal(err)
	}
	k.want(Held)
	if left := present(database); len(left) != len(database) || len(left) == 0 {
		t.Errorf("of the database's %v %v is left", database, left)
	}
	wantError(t, k.Leave(within(t, patience), os.Getpid()), "prog is down")
	if err := k.Start(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	if err := k.Down(within(t, patience), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if left := present(database); len(left) > 0 {
		t.Errorf("%v of the old database is left", left)
	}
}

func TestMisuse(t *testing.T) {
	k := prepare(t, "exec sleep 1000").run()
	k.up()
	wantError(t, k.Start(within(t, patience)), "prog is up already")
	wantError(t, k.Thaw(), "prog is not frozen")
	if err := k.Freeze(); err != nil {
		t.Fatal(err)
	}
	wantError(t, k.Freeze(), "prog is frozen already")
	wantError(t, k.Start(within(t, patience)), "prog is up already")
	if err := k.Down(within(t, patience), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	wantError(t, k.Down(within(t, patience), syscall.SIGKILL), "prog is down already")
	wantError(t, k.Freeze(), "prog is down")
	wantError(t, k.Thaw(), "prog is down")
	wantError(t, k.Signal(syscall.SIGTERM), "prog is down")
}

// Everybody at once: calls may fail, but none hangs, and in the end nothing is left.
func TestTogether(t *testing.T) {
	k := prepare(t, node).underTini().run()
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	var wg sync.WaitGroup
	for _, f := range []func(){
		func() { hung(t, k.Down(ctx, syscall.SIGKILL)) },
		func() { hung(t, k.Down(ctx, syscall.SIGTERM)) },
		func() { hung(t, k.Start(ctx)) },
		func() { _ = k.Freeze() },
		func() { _ = k.Thaw() },
		func() { _ = k.Signal(syscall.SIGKILL) },
		func() { k.State() },
		func() { k.PID() },
	} {
		wg.Go(func() {
			for range 20 {
				f()
			}
		})
	}
	wg.Wait()
	_ = k.Down(within(t, patience), syscall.SIGKILL) // or it is down already
	k.want(Held)
}

func hung(t *testing.T, err error) {
	if errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

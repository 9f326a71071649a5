//go:build linux

package proc

import (
	"os"
	"slices"
	"syscall"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	const rest = "S 10 1234 1234 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 99887766 1 2 3\n"
	for _, name := range []string{"sh", "a) S 1 (b", "x (y)", ") ", ""} {
		s, ok := parse([]byte("1234 (" + name + ") " + rest))
		want := stat{process: process{1234, 99887766}, name: name, state: 'S', parent: 10, threads: 3}
		if !ok || s != want {
			t.Errorf("%q: %+v, %t, want %+v", name, s, ok, want)
		}
	}
	for _, b := range []string{"", "1234", "1234 (sh", ") (", "1234 (sh) S 10"} {
		if s, ok := parse([]byte(b)); ok {
			t.Errorf("%q is read as %+v", b, s)
		}
	}
}

func TestTree(t *testing.T) {
	k := prepare(t, `sh -c "sleep 1000 & echo \$! >grandchild; wait" & echo $! >child; wait`).run()
	pid := k.up()
	want := []int{pid, k.wrotePID("child"), k.wrotePID("grandchild")}
	if got := Tree(pid); !slices.Equal(got, want) {
		t.Errorf("the tree is %v, want %v", got, want)
	}
	if !slices.Contains(Tree(os.Getpid()), want[2]) {
		t.Error("this process's tree lacks it")
	}
	if got := Tree(1 << 30); got != nil {
		t.Errorf("nobody's tree is %v", got)
	}
}

// A number that another process has got meanwhile is not the process that had it.
func TestReusedNumber(t *testing.T) {
	k := prepare(t, "exec sleep 1000").run()
	pid := k.up()
	it := descent(pid)[0]
	old := process{pid, it.begin - 1}
	if err := old.signal(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	if got := present([]process{old, it}); len(got) != 1 || got[0] != it {
		t.Errorf("%v is present, want %v", got, it)
	}
	if err := k.end(); err != nil { // not killed
		t.Error(err)
	}
	if err := it.signal(syscall.SIGKILL); err != nil {
		t.Errorf("a signal to who is gone: %v", err)
	}
}

func TestBuried(t *testing.T) {
	k := prepare(t, "exec sleep 1000").run()
	all := descent(k.up())
	wantError(t, buried(all, time.After(time.Millisecond)), "(sleep) is still there")
	kill(all)
	if err := buried(all, time.After(patience)); err != nil {
		t.Error(err)
	}
}

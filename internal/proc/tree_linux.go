package proc

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	// settle bounds how long processes may take to stop, or to be gone once they are killed, on a busy machine.
	settle = 2 * time.Second
	// One that waits for a disk, or for a child of vfork, stops when that is over. After this long it is taken for
	// stopped: it does nothing else before.
	uninterruptible = 50 * time.Millisecond
)

// Tree is the process and all its descendants now, parents first; nil: there is no such process. The children of one
// that has ended are those of its nearest ancestor that adopts (prctl PR_SET_CHILD_SUBREAPER, as tini -s does), else of
// process 1.
func Tree(pid int) []int {
	var pids []int
	for _, p := range descent(pid) {
		pids = append(pids, p.pid)
	}
	return pids
}

// Freeze stops the process and all its descendants (SIGSTOP), of which thaw lets those go on that are left (SIGCONT). A
// Keeper's own Freeze is for all of its program.
func Freeze(pid int) (thaw func()) {
	all, _ := halt(descent(pid)) // who may not be stopped runs on
	return func() { resume(all) }
}

// FreezeOne is Freeze for one process, and not what it has started.
func FreezeOne(pid int) (thaw func(), err error) {
	s, ok := read(fmt.Sprintf("/proc/%d/stat", pid))
	if !ok {
		return nil, os.ErrProcessDone
	}
	thaw = func() { resume([]process{s.process}) }
	if err := s.process.signal(syscall.SIGSTOP); err != nil {
		return nil, err
	}
	for began := time.Now(); !s.process.still("TtZX"); time.Sleep(time.Millisecond) {
		if time.Since(began) > settle {
			thaw()
			return nil, errors.New("it does not stop")
		}
	}
	return thaw, nil
}

// descent are the processes and all their descendants, parents first.
func descent(pids ...int) []process {
	var roots []process
	for _, pid := range pids {
		if s, ok := read(fmt.Sprintf("/proc/%d/stat", pid)); ok {
			roots = append(roots, s.process)
		}
	}
	all, _ := grow(roots)
	return all
}

// grow appends all descendants of the processes. It is not sure that these are all when somebody's parent ended while
// it was looking: the child has another one now.
func grow(all []process) (grown []process, sure bool) {
	children := make(map[int][]process)
	there := map[int]bool{0: true} // the parent of who has none here
	for _, s := range everybody() {
		children[s.parent] = append(children[s.parent], s.process)
		there[s.pid] = true
	}
	sure = true
	for parent := range children {
		sure = sure && there[parent]
	}
	known := make(map[process]bool)
	for _, p := range all {
		known[p] = true
	}
	for i := 0; i < len(all); i++ {
		for _, c := range children[all[i].pid] {
			if !known[c] {
				known[c] = true
				all = append(all, c)
			}
		}
	}
	return all, sure
}

// halt stops the processes and all their descendants, and returns them all. Who is stopped starts no other, so nobody
// is missing once a look finds that nobody runs, and a later one nobody new. The error says who may not be stopped.
func halt(all []process) ([]process, error) {
	var errs []error
	stopped := 0
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		for _, p := range all[stopped:] {
			errs = append(errs, p.signal(syscall.SIGSTOP))
		}
		stopped = len(all)
		states := "TtZX"
		if time.Since(began) > uninterruptible {
			states += "D"
		}
		quiet := true
		for _, p := range all {
			quiet = quiet && p.still(states)
		}
		grown, sure := grow(all)
		if all = grown; quiet && sure && len(all) == stopped || time.Since(began) > settle {
			return all, errors.Join(errs...)
		}
	}
}

// still reports whether all threads of the process are in one of the states.
func (p process) still(states string) bool {
	if _, ok := p.there(); !ok {
		return true
	}
	dir := fmt.Sprintf("/proc/%d/task", p.pid)
	threads, err := os.ReadDir(dir)
	if err != nil {
		return true // gone meanwhile
	}
	for _, t := range threads {
		if s, ok := read(dir + "/" + t.Name() + "/stat"); ok && !strings.ContainsRune(states, rune(s.state)) {
			return false
		}
	}
	return true
}

// resume lets stopped processes go on.
func resume(all []process) {
	for _, p := range all {
		_ = p.signal(syscall.SIGCONT) // who may not be continued could not be stopped
	}
}

// kill kills stopped processes, children first: the end of a parent can make the kernel wake its stopped children.
func kill(all []process) {
	for _, p := range slices.Backward(all) {
		_ = p.signal(syscall.SIGKILL) // who may not be killed stays, which buried reports
	}
}

// present are those of the processes that are still there.
func present(all []process) []process {
	var left []process
	for _, p := range all {
		if _, ok := p.there(); ok {
			left = append(left, p)
		}
	}
	return left
}

// buried waits until the processes are gone. The error names one that is not when end is ready. It looks again and
// again: nobody but its parent is told of a process's end.
func buried[T any](all []process, end <-chan T) error {
	for {
		if all = present(all); len(all) == 0 {
			return nil
		}
		select {
		case <-end:
			s, _ := all[0].there()
			return fmt.Errorf("process %d (%s) is still there", all[0].pid, s.name)
		case <-time.After(time.Millisecond):
		}
	}
}

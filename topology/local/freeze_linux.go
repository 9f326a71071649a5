package local

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// freezeOne stops one process, and not what it has started.
func freezeOne(pid int) (thaw func(), err error) {
	thaw = func() { _ = kill(pid, syscall.SIGCONT) } // it may be gone
	if err := kill(pid, syscall.SIGSTOP); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(time.Second); !stopped(pid); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			thaw()
			return nil, errors.New("it does not stop")
		}
	}
	return thaw, nil
}

// stopped reports whether a process does not run, or is gone.
func stopped(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	state := b[bytes.LastIndexByte(b, ')')+1:] // after a name that may hold anything
	return bytes.HasPrefix(state, []byte(" T"))
}

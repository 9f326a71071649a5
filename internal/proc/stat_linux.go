package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
)

// process is one process, and not whichever has its number later.
type process struct {
	pid   int
	begin uint64 // of its life, in clock ticks since the machine's start
}

// stat is what the kernel says of a process or a thread.
type stat struct {
	process
	name    string
	state   byte
	parent  int
	threads int
}

// read reads a stat file of /proc; false: there is none any more.
func read(file string) (stat, bool) {
	b, err := os.ReadFile(file)
	if err != nil {
		return stat{}, false
	}
	return parse(b)
}

// parse reads "12 (name) S 1 ...". The name may hold blanks and brackets.
func parse(b []byte) (stat, bool) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return stat{}, false
	}
	rest := bytes.Fields(b[end+1:]) // proc(5) counts from 1, and these from its third
	if len(rest) < 20 {
		return stat{}, false
	}
	number := func(b []byte) int {
		n, _ := strconv.Atoi(string(b)) // the kernel writes numbers
		return n
	}
	return stat{
		process: process{pid: number(bytes.TrimSpace(b[:open])), begin: uint64(number(rest[22-3]))},
		name:    string(b[open+1 : end]), state: rest[0][0], parent: number(rest[4-3]), threads: number(rest[20-3]),
	}, true
}

// everybody reads of all processes.
func everybody() []stat {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var all []stat
	for _, e := range entries {
		if c := e.Name()[0]; c < '0' || c > '9' {
			continue
		}
		if s, ok := read("/proc/" + e.Name() + "/stat"); ok {
			all = append(all, s)
		}
	}
	return all
}

// there reads of a process that lives: one that waits to be reaped does not. A process whose first thread has ended
// before the others does.
func (p process) there() (stat, bool) {
	s, ok := read(fmt.Sprintf("/proc/%d/stat", p.pid))
	dead := s.threads <= 1 && (s.state == 'Z' || s.state == 'X')
	return s, ok && s.process == p && !dead
}

// signal reaches this process or none: its identity is looked at after the handle is taken. That it is gone is no
// error.
func (p process) signal(sig syscall.Signal) error {
	handle, err := os.FindProcess(p.pid)
	if err != nil {
		return err
	}
	defer func() { _ = handle.Release() }()
	s, ok := p.there()
	if !ok {
		return nil
	}
	if err := handle.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("process %d (%s): %w", p.pid, s.name, err)
	}
	return nil
}

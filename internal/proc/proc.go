package proc

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Command is one program.
type Command struct {
	Name  string // of the component, for messages
	Path  string
	Args  []string // without the program's name
	Env   []string // added to this process's environment
	Dir   string
	Log   string // file for its output, appended to; required: an inherited pipe would keep its reader waiting
	User  *User  // nil: this process's own
	Stop  syscall.Signal
	Grace time.Duration // between Stop and SIGKILL; 0: 10 s
	// Death is what it gets when this process dies; 0: SIGKILL. Programs that start others handle it themselves.
	Death syscall.Signal
}

// User is an unprivileged user to run as.
type User struct {
	Name     string
	UID, GID uint32
	Home     string
}

// Starter starts processes from one thread: the kernel sends the signal of a parent's death when the thread that
// forked ends, not the process.
type Starter struct {
	jobs chan func()
	done chan struct{}
}

// NewStarter starts the thread. Close it after the last process has gone.
func NewStarter() *Starter {
	s := &Starter{jobs: make(chan func()), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for f := range s.jobs {
			f()
		}
	}()
	return s
}

// Close ends the thread.
func (s *Starter) Close() {
	close(s.jobs)
	<-s.done
}

// Process is a running program.
type Process struct {
	PID  int
	cmd  *exec.Cmd
	gone chan struct{}
	err  error
}

// Start starts a program. Whoever calls it sees to its end and waits for it; a Keeper does.
func (s *Starter) Start(c Command) (*Process, error) {
	log, err := os.OpenFile(c.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Name, err)
	}
	defer func() { _ = log.Close() }()     // the child has its own
	cmd := exec.Command(c.Path, c.Args...) //nolint:noctx // ended by its Keeper, in its own way
	cmd.Dir, cmd.Stdout, cmd.Stderr = c.Dir, log, log
	cmd.Env = append(os.Environ(), c.Env...)
	death := c.Death
	if death == 0 {
		death = syscall.SIGKILL
	}
	cmd.SysProcAttr = attributes(c, death)
	if c.User != nil {
		cmd.Env = append(cmd.Env, "HOME="+c.User.Home, "USER="+c.User.Name, "LOGNAME="+c.User.Name)
	}
	started := make(chan error, 1)
	s.jobs <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("%s: %s does not start: %w", c.Name, c.Path, err)
	}
	p := &Process{PID: cmd.Process.Pid, cmd: cmd, gone: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.gone)
	}()
	return p, nil
}

// Gone is closed when the program has ended and was waited for.
func (p *Process) Gone() <-chan struct{} { return p.gone }

// Err says how it ended; valid after Gone.
func (p *Process) Err() error { return p.err }

func (p *Process) signal(sig syscall.Signal) {
	_ = p.cmd.Process.Signal(sig) // already gone: the caller waits for that
}

// Tail is the end of a log, for messages.
func Tail(path string, lines int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return "(no log: " + err.Error() + ")"
	}
	all := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

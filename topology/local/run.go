package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"github.com/pgconvoy/pgconvoy/topology"
)

// Run runs a stack: it starts all of it, calls fn when every pooler is routed and both entry points answer, and stops
// all of it when fn returns. It is the zero [Runner]'s Run.
func Run(ctx context.Context, spec topology.Spec, fn func(ctx context.Context, s *Stack) error) error {
	return (&Runner{}).Run(ctx, spec, fn)
}

// Runner runs stacks in its own way. The zero value works.
type Runner struct {
	Dir      string       // where the stack keeps its data; empty: a temporary folder, removed at the end
	Etcd     []string     // endpoints of an etcd of yours, without TLS and credentials; empty: one in this process
	Binaries Binaries     // where the programs are; empty fields are looked for
	Logger   *slog.Logger // of agents and the like; nil: silent
	// Progress is told what the start is waiting for, each time that changes; nil: nobody is told.
	Progress func(waitingFor string)
}

// Run returns after fn has returned and everything that it started is gone. Wrong input, a missing program or a used
// port is one error, before anything is started. If the stack fails, fn's context ends with the reason as its cause,
// and Run returns it. Errors of stopping are joined. A panic in fn stops the stack and goes on.
func (r *Runner) Run(ctx context.Context, spec topology.Spec, fn func(ctx context.Context, s *Stack) error) (err error) {
	s, err := r.prepare(ctx, spec)
	if err != nil {
		return err
	}
	ctx, fail := context.WithCancelCause(ctx)
	s.fail = fail
	defer func() {
		err = errors.Join(err, s.stop())
		fail(nil)
	}()
	if err := s.start(ctx); err != nil {
		return ended(ctx, err)
	}
	if err := s.ready(ctx); err != nil {
		return ended(ctx, err)
	}
	return ended(ctx, fn(ctx, s))
}

// ended prefers the reason why the stack ended to what followed from it.
func ended(ctx context.Context, err error) error {
	var failure *stackError
	if cause := context.Cause(ctx); errors.As(cause, &failure) {
		return cause
	}
	return err
}

// stackError is the failure of a part of the stack.
type stackError struct {
	part string
	err  error
}

func (e *stackError) Error() string { return fmt.Sprintf("local: %s failed: %v", e.part, e.err) }
func (e *stackError) Unwrap() error { return e.err }

// prepare checks everything that can be checked before anything is started.
func (r *Runner) prepare(ctx context.Context, spec topology.Spec) (*Stack, error) {
	if runtime.GOOS != "linux" {
		return nil, fmt.Errorf("local: a stack runs on Linux only, this is %s; the other packages work here", runtime.GOOS)
	}
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	spec = spec.WithDefaults()
	binaries, versions, err := r.Binaries.Find(ctx)
	if err != nil {
		return nil, err
	}
	spec, err = choosePorts(spec)
	if err != nil {
		return nil, err
	}
	f, err := openFolder(r.Dir, spec.Path)
	if err != nil {
		return nil, err
	}
	logger := r.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	progress := r.Progress
	if progress == nil {
		progress = func(string) {}
	}
	return &Stack{
		spec: spec, folder: f, etcd: r.Etcd, bin: binaries, versions: versions, log: logger, progress: progress,
		pids: map[string]int{}, began: time.Now(),
	}, nil
}

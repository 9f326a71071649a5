package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"

	"github.com/pgconvoy/pgconvoy/internal/proc"
	"github.com/pgconvoy/pgconvoy/patroni"
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
	DCS      DCS          // of Kind "consul" or "zookeeper" without Endpoints, too, the stack runs it; zero: an etcd of its own
	Binaries Binaries     // where the programs are; empty fields are looked for
	Logger   *slog.Logger // of agents and the like; nil: silent
	// Progress is told what the start is waiting for, each time that changes; nil: nobody is told.
	Progress func(waitingFor string)
	// Logs is a folder for the log file of each component; it stays. Empty: they are in Dir.
	Logs string

	// Members is the number of servers that the stack runs as its store, without DCS.Endpoints; 0: one. An even number is
	// no safer than the odd one below it.
	Members int
	// Via says at which address one component reaches another that listens at addr: that of a proxy, for example. It is
	// asked once for each pair and address while the stack starts, perhaps before the other listens. nil: at addr.
	//
	// The names are those of Components, and five more: "client" (of WriteDSN and ReadDSN), "coordinator" (of Patroni's
	// API, by the calling process), "poolers" (of a node's PostgreSQL; Patroni publishes one address for all), "replicas"
	// (likewise, for replication) and "peers" (of a node's Patroni, by the other ones).
	Via func(from, to string, addr netip.AddrPort) (netip.AddrPort, error)
	// Roles is the command line of a program that calls [RunRole] before anything else: it runs each agent, the control
	// plane and each etcd server in a process of its own, which can be signalled. Empty: they run in this process.
	Roles []string
	// Node has the last word on the configuration of each node; nil: nobody has.
	Node func(name string, c *patroni.NodeConfig) error
	// Disk is the size in bytes of a file system in memory for each node's data, gone with its processes; it needs root.
	// 0: data is below Dir.
	Disk int64
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
		err = errors.Join(err, s.stop(context.WithoutCancel(ctx)))
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
	store := r.DCS
	store.Kind = cmp.Or(store.Kind, embeddedKind)
	if err := r.check(spec, store); err != nil {
		return nil, err
	}
	var stores []string
	if store.own() {
		stores = append(stores, store.Kind)
	}
	binaries, versions, err := r.Binaries.Find(ctx, stores...)
	if err != nil {
		return nil, err
	}
	ports := newPorts()
	if spec, err = ports.choose(spec); err != nil {
		return nil, err
	}
	xdsAddr, err := ports.free(loopback(0))
	if err != nil {
		return nil, err
	}
	f, err := openFolder(r.Dir, spec.Path)
	if err != nil {
		return nil, err
	}
	logs := f.dir
	if r.Logs != "" {
		if logs, err = filepath.Abs(r.Logs); err == nil {
			err = os.MkdirAll(logs, 0o755)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("local: Runner.Logs: %w", err), f.close())
		}
	}
	var members []member
	if store.own() {
		if members, err = f.members(store, max(r.Members, 1), ports); err != nil {
			return nil, errors.Join(err, f.close())
		}
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
		spec: spec, folder: f, logs: logs, kind: store, members: members, bin: binaries, versions: versions, log: logger, progress: progress,
		program: r.Roles, lastWord: r.Node, disk: r.Disk, wiring: wiring{via: r.Via}, xdsAddr: xdsAddr,
		units: map[string]*proc.Keeper{}, thaw: map[string]func(){},
	}, nil
}

// check refuses fields that cannot be.
func (r *Runner) check(spec topology.Spec, store DCS) error {
	if err := store.check(); err != nil {
		return err
	}
	for i, n := range spec.Nodes {
		if reserved(n.Name, store) {
			return fmt.Errorf("local: Spec.Nodes[%d].Name %q is the name of another component of the stack", i, n.Name)
		}
	}
	for i, p := range spec.Poolers {
		if reserved(p.Name, store) {
			return fmt.Errorf("local: Spec.Poolers[%d].Name %q is the name of another component of the stack", i, p.Name)
		}
	}
	switch {
	case r.Members < 0:
		return fmt.Errorf("local: Runner.Members is %d", r.Members)
	case r.Members > 0 && !store.own():
		return errors.New("local: Runner has Members and DCS.Endpoints: the stack runs the servers of its store, or uses yours")
	case r.Disk < 0 || r.Disk > 0 && r.Disk < minDisk:
		return fmt.Errorf("local: Runner.Disk is %d bytes, a node needs %d", r.Disk, minDisk)
	case r.Disk > 0 && os.Geteuid() != 0:
		return errors.New("local: Runner.Disk needs root, to mount a file system")
	}
	return nil
}

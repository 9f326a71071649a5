package topologytest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"syscall"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/topology"
	"github.com/pgconvoy/pgconvoy/topology/local"
)

// Backend runs the stacks of tests; [Processes] is the one for this machine.
type Backend interface {
	// Check says why a stack on a store of this kind cannot run here, and what to do about it.
	Check(ctx context.Context, dcs string) error
	// Run starts a stack, calls fn when all of it is routed, and stops all of it when fn returns. If the stack fails,
	// fn's ctx ends with the reason as its cause, and Run returns that.
	Run(ctx context.Context, c Config, fn func(ctx context.Context, r Running) error) error
}

// Config is what a test asks of a backend. The fields are those of [local.Runner].
type Config struct {
	Spec    topology.Spec
	DCS     string // Runner.DCS.Kind
	Members int
	Disk    int64
	Via     func(from, to string, addr netip.AddrPort) (netip.AddrPort, error) // nil: no proxies
	Node    func(name string, c *patroni.NodeConfig) error
	Logs    string // a folder that is there
	Logger  *slog.Logger
}

// Running is a stack that runs. [local.Stack] says what each method means.
type Running interface {
	Spec() topology.Spec
	Store() dcs.Store
	DCS() local.DCS
	Cluster() topology.Cluster
	Patroni() *patroni.Client
	Observer() *topology.Observer
	Ready(v topology.View) bool
	Await(ctx context.Context, done func(topology.View) bool) error

	WriteDSN() string
	ReadDSN() string
	DirectDSN(node string) string
	SuperuserDSN(node string) string
	AdminDSN(pooler string) string
	DataDir(node string) (string, error)

	Components() []string
	PID(component string) (int, error)
	Signal(component string, sig syscall.Signal) error
	Down(ctx context.Context, component string, sig syscall.Signal) error
	Up(ctx context.Context, component string) error
	Freeze(component string) error
	Thaw(component string) error
}

var _ Running = (*local.Stack)(nil)

// Processes runs stacks as processes of this machine, from the programs that are installed on it.
type Processes struct {
	Binaries local.Binaries // where the programs are; empty fields are looked for
}

// Check implements [Backend].
func (p Processes) Check(ctx context.Context, dcs string) error {
	_, _, err := p.Binaries.Find(ctx, dcs)
	return err
}

// Run implements [Backend].
func (p Processes) Run(ctx context.Context, c Config, fn func(ctx context.Context, r Running) error) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("topologytest: this program, to start it again: %w", err)
	}
	r := local.Runner{
		Binaries: p.Binaries, Logger: c.Logger, Logs: c.Logs,
		DCS: local.DCS{Kind: c.DCS}, Members: c.Members, Via: c.Via, Roles: []string{self}, Node: c.Node, Disk: c.Disk,
	}
	return r.Run(ctx, c.Spec, func(ctx context.Context, s *local.Stack) error { return fn(ctx, s) })
}

// errEnded is why a stack that was not asked to stop has no reason to give.
var errEnded = errors.New("topologytest: the stack has ended")

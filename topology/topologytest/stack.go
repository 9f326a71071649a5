package topologytest

import (
	"context"
	"testing"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/topology"
	"github.com/pgconvoy/pgconvoy/topology/local"
)

// Stack is a running stack in the hands of one test. What goes wrong in a method fails that test at once, so its
// methods belong into the test's own goroutine, like those of testing.T.
type Stack struct {
	*running
	t testing.TB
}

// handle gives the stack to a test.
func (u *running) handle(t testing.TB) *Stack {
	t.Helper()
	s := &Stack{running: u, t: t}
	t.Cleanup(func() { u.undoAll(t) })
	return s
}

// For gives the stack to a subtest: what goes wrong fails that one, and what it broke is undone when it ends.
func (s *Stack) For(t testing.TB) *Stack {
	t.Helper()
	return s.handle(t)
}

// WriteDSN leads an application through Envoy and a PgBouncer to the primary. It holds a password.
func (s *Stack) WriteDSN() string { return s.r.WriteDSN() }

// ReadDSN leads an application through Envoy and a PgBouncer to the replicas. It holds a password.
func (s *Stack) ReadDSN() string { return s.r.ReadDSN() }

// DirectDSN leads the application's user straight to a node. It holds a password.
func (s *Stack) DirectDSN(node string) string { return s.known(node, s.r.DirectDSN(node)) }

// SuperuserDSN leads the superuser straight to a node. It holds a password.
func (s *Stack) SuperuserDSN(node string) string { return s.known(node, s.r.SuperuserDSN(node)) }

// AdminDSN leads to a pooler's console, which speaks simple queries only. It holds a password.
func (s *Stack) AdminDSN(pooler string) string { return s.known(pooler, s.r.AdminDSN(pooler)) }

func (s *Stack) known(name, dsn string) string {
	s.t.Helper()
	if dsn == "" {
		s.t.Fatalf("topologytest: the stack has no %q", name)
	}
	return dsn
}

// Components are the names of all components, sorted.
func (s *Stack) Components() []string { return s.r.Components() }

// PID is the process of a component now: of "n1/postgres" the postmaster, of "n1" the one that reaps all others.
func (s *Stack) PID(component string) (int, error) { return s.r.PID(component) }

// Spec is what runs, with all addresses filled in.
func (s *Stack) Spec() topology.Spec { return s.r.Spec() }

// Store is the stack's configuration store, past every proxy.
func (s *Stack) Store() dcs.Store { return s.r.Store() }

// DCS is where that store is, for a client of your own.
func (s *Stack) DCS() local.DCS { return s.r.DCS() }

// Cluster is what roles of this stack share: for an agent, a coordinator or a controller of your own.
func (s *Stack) Cluster() topology.Cluster { return s.r.Cluster() }

// Patroni is a client with the credentials of the stack's REST APIs.
func (s *Stack) Patroni() *patroni.Client { return s.r.Patroni() }

// Coordinator carries out operations on this stack.
func (s *Stack) Coordinator() *topology.Coordinator {
	return &topology.Coordinator{Cluster: s.Cluster(), Patroni: s.Patroni()}
}

// Do carries an operation out.
func (s *Stack) Do(ctx context.Context, op topology.Operation) (topology.Report, error) {
	return s.Coordinator().Do(ctx, op)
}

// Observer reads this stack.
func (s *Stack) Observer() *topology.Observer { return s.r.Observer() }

// View reads everything that is known of the stack.
func (s *Stack) View() topology.View { return s.Observer().View(s.t.Context()) }

// Logs is the folder with the logs of all components; it is removed when the test succeeds.
func (s *Stack) Logs() string { return s.logs }

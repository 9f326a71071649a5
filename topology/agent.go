package topology

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/mutant"
	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/pooler"
)

// Agent is the link between one pooler and the store: it routes the pooler to what is proven, holds it over a change,
// and refuses clients when a hold has lasted too long. It registers itself as long as it lives.
//
// Rights: to read the cluster's directory, and to read and write below /pgconvoy<Path> and /pgconvoy-history<Path>.
type Agent struct {
	Cluster
	Name    string         // of the pooler, unique in the fleet; no slash
	Service Service        // zero: Write
	Listen  netip.AddrPort // where clients, that is Envoy, reach the pooler
	Pooler  Pooler

	// Patroni wakes the Patroni of a primary that does not answer, so that it acts at once and not at its next loop. While
	// the store does not answer it asks whether the primary goes on by failsafe mode. nil: never woken, all works later;
	// and a primary that was lost in an outage of the store is not returned to before the store is back.
	Patroni *patroni.Client

	// Patience is how long an unplanned hold may last before clients are refused. It must exceed Patroni's ttl by
	// 5 s, and PgBouncer's query_wait_timeout must exceed it. 0: 60 s.
	Patience time.Duration

	// MaxLag is how far behind the primary a replica may be to serve the Read service, in time. 0: 10 s; negative: as far
	// as it likes.
	MaxLag time.Duration

	once      once
	mu        sync.Mutex
	published AgentState
}

// AgentState is what an agent is doing.
type AgentState struct {
	State     PoolerState
	Target    pooler.Target
	Epoch     patroni.Epoch
	Drained   bool   // held, and no transaction is left on a server
	Operation string // the operation that it holds for
	Draining  bool   // its roster entry says that it gets no new clients
	Since     time.Time
	Reason    string // the rule that led here
	Err       error  // what does not work at present; it is tried again
}

// State is safe to call at any time; before Run it is zero.
func (a *Agent) State() AgentState {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.published
}

// Validate is what Run checks first.
func (a *Agent) Validate() error {
	errs := []error{a.Cluster.validate("Agent")}
	if err := checkName("Agent.Name", a.Name); err != nil {
		errs = append(errs, err)
	}
	if !a.Listen.IsValid() || a.Listen.Addr().IsUnspecified() || a.Listen.Port() == 0 {
		errs = append(errs, fmt.Errorf("topology: Agent.Listen %v of %q is not an address that Envoy can connect to", a.Listen, a.Name))
	}
	if a.Pooler == nil {
		errs = append(errs, fmt.Errorf("topology: Agent.Pooler of %q is missing", a.Name))
	}
	if a.Service != Write && a.Service != Read {
		errs = append(errs, fmt.Errorf("topology: Agent.Service of %q is %v", a.Name, a.Service))
	}
	if a.Patience < 0 {
		errs = append(errs, fmt.Errorf("topology: Agent.Patience of %q is negative", a.Name))
	}
	return errors.Join(errs...)
}

// Run works until ctx ends and returns its cause; any other error is a wrong field, refused credentials, or an agent
// that is running already. It leaves the pooler as it is: serving on the last proven route, or held.
func (a *Agent) Run(ctx context.Context) error {
	if err := a.Validate(); err != nil {
		return err
	}
	if err := a.once.enter("Agent"); err != nil {
		return err
	}
	defer a.once.leave()

	ctx, cancel := context.WithCancelCause(ctx)
	var running sync.WaitGroup
	defer func() {
		if !mutant.Is("law14-run-does-not-wait") {
			running.Wait()
		}
	}()
	defer cancel(nil)

	r := &agentRun{
		Agent: a, log: a.logger().With("pooler", a.Name, "service", a.Service.String(), "cluster", a.Path),
		running: &running, news: make(chan record.Pooler, 1), told: make(chan []record.Move, 1), instance: rand.Text()[:12],
		fresh: make(chan patroni.Leadership, 1), answers: make(chan homeAnswer, 1), peers: map[string]bool{},
	}
	r.patience = cmp.Or(a.Patience, time.Minute)
	running.Go(func() { r.register(ctx) })
	running.Go(func() { r.keepHistory(ctx) })
	return r.run(ctx)
}

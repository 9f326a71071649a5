package topology

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/pooler"
)

// Agent is the link between one pooler and the store: it routes the pooler to what is proven, holds it over a change,
// and refuses clients when a hold has lasted too long. It registers itself as long as it lives.
//
// Rights: to read the cluster's directory, and to write below /pgconvoy<Path>.
type Agent struct {
	Cluster
	Name    string         // of the pooler, unique in the fleet; no slash
	Service Service        // zero: Write
	Listen  netip.AddrPort // where clients, that is Envoy, reach the pooler
	Pooler  Pooler

	// Patroni wakes the Patroni of a primary that does not answer, so that it acts at once and not at its next loop.
	// nil: never woken; all works, later.
	Patroni *patroni.Client

	// Patience is how long an unplanned hold may last before clients are refused. It must exceed Patroni's ttl by
	// 5 s, and PgBouncer's query_wait_timeout must exceed it. 0: 60 s.
	Patience time.Duration

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
	defer running.Wait()
	defer cancel(nil)

	r := &agentRun{
		Agent: a, log: a.logger().With("pooler", a.Name, "service", a.Service.String(), "cluster", a.Path),
		running: &running, news: make(chan record.Pooler, 1),
		fresh: make(chan patroni.Leadership, 1), peers: map[string]bool{},
	}
	r.patience = cmp.Or(a.Patience, time.Minute)
	running.Go(func() { r.register(ctx) })
	return r.run(ctx)
}

// agentRun is one Run. Only run's goroutine touches it, except for the channels.
type agentRun struct {
	*Agent
	situation
	log     *slog.Logger
	running *sync.WaitGroup

	reason  string
	since   time.Time
	err     error
	said    string // the error that was logged last, and when: one that stays is not logged ten times a second
	saidAt  time.Time
	isHeld  bool               // PAUSE is in effect
	drain   bool               // and nothing is on a server any more
	holding context.CancelFunc // of the Hold under way; nil: none
	drained chan error         // and its end; nil: none
	heldAt  time.Time          // when it was sent
	holdAt  time.Time          // a Hold that failed is not sent again before this
	waking  context.CancelFunc
	nowake  atomic.Bool // Patroni refused to be woken

	asker     string    // who asks us to hold, or did so last
	stop      string    // the last stop that asked without an operation
	until     time.Time // how long it may
	asking    bool      // it asked at the last look
	committed bool      // and was past its point of no return
	fresh     chan patroni.Leadership
	freshing  bool
	peers     map[string]bool // live agents of the write service
	news      chan record.Pooler
	told      record.Pooler
}

// look is how often the pooler's own state is read when nothing happens.
const look = time.Second

func (r *agentRun) run(ctx context.Context) error {
	if err := r.start(ctx); err != nil {
		return err
	}
	defer r.stopHold()
	defer r.stopWake()
	wctx, cancel := context.WithCancel(ctx)
	leads, waitLeads := dcs.Latest(r.leaders(r.Service == Read).Watch(wctx))
	ours, waitOurs := dcs.Latest(r.Store.Watch(wctx, record.Dir(r.Path)))
	defer func() {
		cancel()
		_, _ = waitLeads(), waitOurs() // whichever ended it was returned
	}()
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		r.tell()
		var deadline <-chan time.Time
		if t := r.nextMoment(); !t.IsZero() {
			deadline = time.After(time.Until(t))
		}
		var again <-chan time.Time
		if r.err != nil {
			again = time.After(100 * time.Millisecond)
		}
		select {
		case l, ok := <-leads:
			if !ok {
				return r.ended(ctx, waitLeads())
			}
			if l.Phase == patroni.Writable && r.proven() && l.Addr == r.lead.Addr && l.Epoch == r.lead.Epoch && l.At.Before(r.lead.At) {
				l.At = r.lead.At // proven anew in between, and not lost since
			}
			r.lead = l
		case s, ok := <-ours:
			if !ok {
				return r.ended(ctx, waitOurs())
			}
			r.sawRecords(s)
		case l := <-r.fresh:
			r.freshing = false
			if l.Phase == patroni.Writable && r.stuck() { // else something newer was seen meanwhile
				r.lead = l
			}
		case err := <-r.drained:
			r.sawHoldEnd(ctx, err)
		case <-deadline:
		case <-again:
			r.sawPooler(ctx)
		case <-tick.C:
			r.sawPooler(ctx)
		}
		r.act(ctx)
	}
}

// ended is the end of a watch: ctx, or something that cannot heal by itself.
func (r *agentRun) ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("topology: agent %s: %w", r.Name, orEnded(err))
}

// start reads what the pooler has. A pause that nobody owns becomes a hold with a fresh deadline.
func (r *agentRun) start(ctx context.Context) error {
	r.enter(Starting, "the agent has started")
	retry(ctx, func(ctx context.Context) error {
		st, err := r.readPooler(ctx)
		if err != nil {
			return err
		}
		epoch, err := patroni.ParseEpoch(st.Target.Mark)
		if err != nil {
			r.log.WarnContext(ctx, "the pooler's mark is not an epoch; starting without one", "error", err)
		}
		r.route, r.epoch, r.home, r.err = st.Target, epoch, netip.AddrPort{}, nil
		if epoch.IsZero() {
			// A route that was cut off between its two halves: the file is ahead of what is live. Where its epoch was
			// proven is not known for certain (a person may have edited the file), that it must not go back is.
			if r.epoch, err = patroni.ParseEpoch(st.File.Mark); err != nil {
				r.epoch = patroni.Epoch{}
			}
		} else if len(st.Target.Hosts) > 0 {
			r.home = st.Target.Hosts[0]
		}
		switch {
		case st.Held:
			r.isHeld, r.drain = true, st.Drained
			r.doubt, r.deadline = time.Now(), time.Now().Add(r.patience)
			r.enter(Held, "found paused at start")
		case len(st.Target.Hosts) == 0 || epoch.IsZero():
			// Whatever it is on was not put there by an agent: nothing about it is proven.
			r.enter(Failed, "no primary is proven yet")
		default:
			r.enter(Routed, "found on a proven target at start")
		}
		return nil
	}, func(err error) {
		r.err = err
		r.tell()
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

func (r *agentRun) sawRecords(s dcs.Snapshot) {
	op, ok, err := record.OperationOf(s, r.Path)
	if err != nil {
		r.log.Warn("the operation's record cannot be read; it is ignored", "error", err)
		ok = false
	}
	if !ok {
		op = record.Operation{}
	}
	stops, err := record.BeforeStopsOf(s, r.Path)
	if err != nil {
		r.log.Warn("the request of a before-stop hook cannot be read; it is ignored", "error", err)
	}
	r.stops = stops
	r.operation = op
	poolers, _ := record.PoolersOf(s, r.Path) // one that cannot be read counts as absent
	clear(r.peers)
	for name, p := range poolers {
		if p.Service == Write.String() { // the others wake nobody
			r.peers[name] = true
		}
	}
}

// readPooler reads the pooler's state, bounded.
func (r *agentRun) readPooler(ctx context.Context) (pooler.State, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return r.Pooler.State(ctx)
}

// sawPooler compares the pooler with what it should be: a pooler that was restarted has lost its pause.
func (r *agentRun) sawPooler(ctx context.Context) {
	st, err := r.readPooler(ctx)
	if err != nil {
		r.fail(ctx, "read the pooler's state", err)
		return
	}
	r.err = nil
	switch {
	case r.state == Held && !st.Held:
		if r.holding != nil && time.Since(r.heldAt) < look {
			break // it is on its way
		}
		r.stopHold()
		r.isHeld, r.drain = false, false
	case r.state == Held:
		r.drain = r.drain || st.Drained
	case r.state == Routed && r.settled() && (st.Held || !st.Target.SameHosts(r.route)):
		r.log.WarnContext(ctx, "the pooler is not as it was left; routing it again", "held", st.Held, "target", st.Target.Hosts)
		r.push(ctx, r.route)
	}
}

// nextMoment is when the clock alone may change what applies; zero: never. What has passed was seen by act.
func (r *agentRun) nextMoment() (next time.Time) {
	consider := func(t time.Time) {
		if t.After(r.now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	if r.state == Held {
		consider(r.deadline)
		if r.asking {
			consider(r.until)
		}
	}
	if r.state == Held || r.state == Failed {
		consider(r.doubt.Add(time.Millisecond)) // a proof that begins now would count
	}
	return next
}

func (r *agentRun) fail(ctx context.Context, what string, err error) {
	if ctx.Err() != nil {
		return
	}
	r.err = fmt.Errorf("%s: %w", what, err)
	if r.err.Error() == r.said && time.Since(r.saidAt) < time.Minute {
		return
	}
	r.said, r.saidAt = r.err.Error(), time.Now()
	r.log.WarnContext(ctx, "an action on the pooler failed; it is tried again", "action", what, "error", err)
}

func (r *agentRun) enter(s PoolerState, reason string) {
	r.state, r.reason, r.since = s, reason, time.Now()
	r.log.Info("state", "state", string(s), "reason", reason, "epoch", r.epoch.String(), "leader", r.lead.Member, "evidence", r.lead.Reason)
}

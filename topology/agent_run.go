package topology

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/mutant"
	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/pooler"
)

// agentRun is one Run. Only run's goroutine touches it, except for the channels.
type agentRun struct {
	*Agent
	situation
	log     *slog.Logger
	running *sync.WaitGroup

	reason  string
	since   time.Time
	err     error
	said    lately             // the error that was logged last
	isHeld  bool               // PAUSE is in effect
	drain   bool               // and nothing is on a server any more
	holding context.CancelFunc // of the Hold under way; nil: none
	drained chan error         // and its end; nil: none
	heldAt  time.Time          // when it was sent
	holdAt  time.Time          // a Hold that failed is not sent again before this
	waking  context.CancelFunc
	nowake  atomic.Bool // Patroni refused to be woken

	asker     wish      // who asks us to hold, or did so last
	until     time.Time // how long it may
	asking    bool      // it asked at the last look
	committed bool      // and was past its point of no return

	fresh    chan patroni.Leadership
	freshing bool
	answers  chan homeAnswer
	homing   bool
	homeAt   time.Time // the old primary is not asked again before this

	draining bool            // the roster entry asks for it
	empty    bool            // no client was there at the last look, which was after that
	records  dcs.Snapshot    // the last that the store has of ours
	peers    map[string]bool // live agents of the write service

	instance   string // of this run
	registered bool   // the registration was seen with it
	rivalAt    time.Time
	rivals     bool // the registration is another run's
	news       chan record.Pooler
	newsAt     time.Time
	written    record.Pooler // the last of the news

	moves []record.Move
	told  chan []record.Move
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
	leads, waitLeads := dcs.Latest(r.follow().Watch(wctx))
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
			if l.Stale != nil && mutant.Is("law1-agent-moves-without-store") {
				l.Phase, l.Proof = patroni.Vacant, patroni.Proof{At: time.Now(), Err: l.Stale}
			}
			if l.Phase == patroni.Writable && r.proven() && l.Addr == r.lead.Addr && l.Epoch == r.lead.Epoch && l.At.Before(r.lead.At) {
				l.At = r.lead.At // proven anew in between, and not lost since
			}
			r.lead = l
			if l.Addr == r.home && gone(l.Proof) {
				r.lostAt = l.Proof.At
			}
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
		case a := <-r.answers:
			r.homing = false
			if a.addr == r.home {
				r.former = a.Proof
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
	r.state, r.reason, r.since = Starting, "the agent has started", time.Now()
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

// follow is the source of leadership that the agent follows.
func (r *agentRun) follow() LeaderSource {
	return r.leaders(patroni.Source{Replicas: r.Service == Read, MaxLag: r.MaxLag, Client: r.Patroni})
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
	r.empty = r.draining && st.Clients == 0
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
		if r.push(ctx, r.route) {
			r.enter(Routed, "the pooler was not as it was left")
		}
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
	if r.requested() {
		consider(r.lead.Failover.ScheduledAt)
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
	if r.said.news(r.err.Error()) {
		r.log.WarnContext(ctx, "an action on the pooler failed; it is tried again", "action", what, "error", err)
	}
}

// enter is a change of the state or the route.
func (r *agentRun) enter(to PoolerState, cause string) {
	from := r.state
	r.state, r.reason, r.since = to, cause, time.Now()
	r.record(from)
}

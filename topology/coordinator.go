package topology

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/mutant"
	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
)

// Coordinator plans and carries out planned operations. Any process may be it; the store's lock lets one work at a
// time. When it dies, each agent goes on by itself: to proof or deadline.
//
// Rights: to read the cluster's directory, to write below /pgconvoy<Path>, and Patroni's REST API with its
// credentials where it has any. A Prober that can checkpoint (patroni.SQL) makes the switch shorter.
type Coordinator struct {
	Cluster
	Patroni *patroni.Client // nil: the zero client
}

// Validate is what Plan and Do check first.
func (c *Coordinator) Validate() error { return c.Cluster.validate("Coordinator") }

// Plan previews an operation without changing anything.
func (c *Coordinator) Plan(ctx context.Context, op Operation) (Plan, error) {
	s, err := c.check(op)
	if err != nil {
		return Plan{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	r := c.newRun(s)
	defer r.follow(ctx)()
	return r.plan(ctx)
}

// Do carries an operation out and blocks until it is over. The error is a [*RefusedError] (nothing was begun), an
// [*AbortedError] (called off, all released), or wraps [ErrUnknown] (past the point of no return, outcome not seen).
// The report tells what was done in each case.
func (c *Coordinator) Do(ctx context.Context, op Operation) (Report, error) {
	s, err := c.check(op)
	if err != nil {
		return Report{}, err
	}
	r := c.newRun(s)
	defer r.follow(context.WithoutCancel(ctx))() // an operation that is called off still watches the release

	first := r.rec
	err = dcs.Lock(ctx, c.Store, record.OperationKey(c.Path), record.Encode(&first), r.locked)
	if held, ok := errors.AsType[*dcs.HeldError](err); ok {
		who := "somebody"
		if o, derr := record.Decode[record.Operation](held.Holder); derr == nil {
			who = fmt.Sprintf("%s (a %s in phase %s)", o.Owner, o.Kind, o.Phase)
		}
		err = &RefusedError{[]Refusal{{"another operation is running: " + who, "wait until it is over"}}}
	} else if r.version == (dcs.Version{}) && errors.Is(err, dcs.ErrConflict) {
		err = &RefusedError{[]Refusal{{"another operation was running until now", "try again"}}}
	}
	return r.report, err
}

func (c *Coordinator) check(op Operation) (Switchover, error) {
	if err := c.Validate(); err != nil {
		return Switchover{}, err
	}
	s, ok := op.(Switchover)
	if !ok {
		return s, fmt.Errorf("topology: operation %T is not known; give a topology.Switchover", op)
	}
	return s, nil
}

func (c *Coordinator) newRun(op Switchover) *coordination {
	id := strings.ToLower(rand.Text()[:12])
	r := &coordination{Coordinator: c, op: op, log: c.logger().With("cluster", c.Path, "operation", id)}
	r.rec = record.Operation{
		ID: id, Kind: "switchover", Phase: record.Prepare, Limit: op.limit(),
		Owner: thisProcess(), Since: time.Now(),
	}
	r.report.ID = id
	return r
}

// coordination is one operation under way.
type coordination struct {
	*Coordinator
	op      Switchover
	log     *slog.Logger
	rec     record.Operation
	version dcs.Version
	report  Report
	before  netip.AddrPort // the old primary
	held    time.Time      // when the first pooler held

	leads    <-chan patroni.Leadership
	clusters <-chan patroni.Cluster
	ours     <-chan dcs.Snapshot
	ends     [3]func() error // of these, in this order: why it ended
	picture
}

// follow opens the watches that the operation lives on. The result closes them.
func (r *coordination) follow(ctx context.Context) (stop func()) {
	wctx, cancel := context.WithCancel(ctx)
	r.leads, r.ends[0] = dcs.Latest(r.leaders(patroni.Source{}).Watch(wctx))
	r.clusters, r.ends[1] = dcs.Latest(patroni.Watch(wctx, r.Store, r.Path))
	r.ours, r.ends[2] = dcs.Latest(r.Store.Watch(wctx, record.Dir(r.Path)))
	return func() {
		cancel()
		for _, end := range r.ends {
			_ = end() // the reason was returned by await
		}
	}
}

// await takes levels until done says so, or why not. It is for one goroutine at a time.
func (r *coordination) await(ctx context.Context, done func() bool) error {
	for !done() {
		var ended func() error // the watch that ended
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case l, open := <-r.leads:
			if open {
				r.lead = l
			} else {
				ended = r.ends[0]
			}
		case c, open := <-r.clusters:
			if open {
				r.cluster = c
			} else {
				ended = r.ends[1]
			}
		case s, open := <-r.ours:
			if open {
				r.sawRecords(s)
			} else {
				ended = r.ends[2]
			}
		}
		if ended != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return orEnded(ended())
		}
	}
	return nil
}

func (r *coordination) sawRecords(s dcs.Snapshot) {
	if !s.Known() {
		return
	}
	var errs [3]error
	r.fleet, errs[0] = record.FleetOf(s, r.Path)
	r.poolers, errs[1] = record.PoolersOf(s, r.Path)
	r.hooks, errs[2] = record.HooksOf(s, r.Path)
	r.broken = errors.Join(errs[:]...)
	r.sawHeld()
}

// sawHeld keeps when the first pooler was seen to hold for this operation.
func (r *coordination) sawHeld() {
	for _, p := range r.poolers {
		if r.held.IsZero() && p.State == string(Held) && p.Operation == r.rec.ID {
			r.held = time.Now()
		}
	}
}

// plan waits until the picture is whole, at most 5 s, and plans on what there is.
func (r *coordination) plan(ctx context.Context) (Plan, error) {
	wctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err := r.await(wctx, func() bool {
		return r.lead.Phase == patroni.Writable && r.cluster.Known() && r.fleet != nil
	})
	if err != nil && (ctx.Err() != nil || wctx.Err() == nil) {
		return Plan{}, err
	}
	return planSwitchover(r.op, r.picture), nil
}

// locked is the operation, under the lock.
func (r *coordination) locked(ctx context.Context, w dcs.Writer, held dcs.Version) error {
	r.version = held
	plan, err := r.plan(ctx)
	if err != nil {
		return err
	}
	r.rec.From, r.rec.To, r.rec.Epoch = plan.From, plan.To, plan.Epoch
	r.report.From, r.report.To, r.report.Before = plan.From, plan.To, plan.Epoch
	r.before = r.lead.Addr
	if len(plan.Refusals) > 0 {
		return &RefusedError{plan.Refusals}
	}
	r.log.InfoContext(ctx, "switchover", "from", plan.From, "to", plan.To, "epoch", plan.Epoch.String(), "token", held.Created)

	if err := r.step("prepare", func() (string, error) { return r.prepare(ctx) }); err != nil {
		return &AbortedError{"prepare", err}
	}
	r.rec.Hook = plan.Hook
	if !plan.Hook {
		if err := r.step("hold", func() (string, error) { return r.hold(ctx, w, plan.Poolers) }); err != nil {
			return r.release(ctx, w, plan.Poolers, "hold", err)
		}
	}
	if err := r.step("switch", func() (string, error) { return r.switchOver(ctx, w) }); err != nil {
		if errors.Is(err, errNotTaken) || mutant.Is("law6-no-way-back-after-the-switch") {
			return r.release(ctx, w, plan.Poolers, "switch", err)
		}
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	if err := r.step("release", func() (string, error) { return r.routed(ctx, plan.Poolers) }); err != nil {
		return fmt.Errorf("%w: the primary has changed, not all poolers have followed: %w", ErrUnknown, err)
	}
	if r.report.Held = time.Since(r.held); r.held.IsZero() {
		r.report.Held = 0 // the hook did not ask: the poolers held when they lost the primary, or not at all
		r.report.Notes = append(r.report.Notes, "the before-stop hook of "+plan.From+" did not hold the poolers")
	}
	if err := r.phase(ctx, w, record.Done); err != nil {
		r.report.Notes = append(r.report.Notes, "the end could not be recorded: "+err.Error())
	}
	return nil
}

func (r *coordination) step(name string, f func() (string, error)) error {
	s := Step{Name: name, Began: time.Now()}
	var err error
	s.Evidence, err = f()
	s.Took = time.Since(s.Began)
	if err != nil {
		s.Evidence = err.Error()
	}
	r.report.Steps = append(r.report.Steps, s)
	r.log.Info("step", "step", name, "took", s.Took, "evidence", s.Evidence)
	return err
}

// phase writes the operation's record: the order that agents follow, and the progress that anybody can watch.
func (r *coordination) phase(ctx context.Context, w dcs.Writer, phase string) error {
	r.rec.Phase, r.rec.Since = phase, time.Now()
	v, err := w.Put(ctx, record.OperationKey(r.Path), record.Encode(&r.rec), r.version)
	if err == nil {
		r.version = v
	}
	return err
}

// prepare makes the checkpoint of the stopping primary, and of the promoted candidate, short. It is not required.
func (r *coordination) prepare(ctx context.Context) (string, error) {
	cp, ok := r.Prober.(checkpointer)
	if !ok {
		return "no checkpoint: the prober cannot make one", nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	candidate, _ := r.cluster.Member(r.rec.To)
	other := make(chan error, 1)
	go func() {
		addr, err := candidate.Addr()
		if err == nil {
			err = cp.Checkpoint(ctx, addr)
		}
		other <- err
	}()
	var took time.Duration
	var err error
	for range 5 { // the first writes what had gathered; repeat until little gathers in the meantime
		began := time.Now()
		if err = cp.Checkpoint(ctx, r.lead.Addr); err != nil {
			break
		}
		if took = time.Since(began); took < 200*time.Millisecond {
			break
		}
	}
	if err := errors.Join(err, <-other); err != nil {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		r.report.Notes = append(r.report.Notes, "checkpoint: "+err.Error())
		return "no checkpoint was made", nil
	}
	return fmt.Sprintf("the last checkpoint took %s", took.Round(time.Millisecond)), nil
}

func (r *coordination) hold(ctx context.Context, w dcs.Writer, names []string) (string, error) {
	if err := r.phase(ctx, w, record.Hold); err != nil {
		return "", err
	}
	hctx, cancel := context.WithTimeoutCause(ctx, r.op.budget(), fmt.Errorf("not within %s", r.op.budget()))
	defer cancel()
	var missing []string
	err := r.await(hctx, func() bool {
		missing = unrouted(names, r.poolers, func(p record.Pooler) bool {
			return p.State == string(Held) && p.Drained && p.Operation == r.rec.ID
		})
		return len(missing) == 0
	})
	if err != nil && !mutant.Is("law6-all-or-none") {
		return "", fmt.Errorf("not held: %s: %w", strings.Join(missing, ", "), err)
	}
	return fmt.Sprintf("%d poolers hold, nothing runs", len(names)), nil
}

// errNotTaken: Patroni certainly does nothing; it was not asked, or it refused.
var errNotTaken = errors.New("Patroni did not begin a switchover")

func (r *coordination) switchOver(ctx context.Context, w dcs.Writer) (string, error) {
	leader, _ := r.cluster.Member(r.rec.From)
	if err := r.phase(ctx, w, record.Switch); err != nil {
		// Whether or not it was written, nothing was sent to Patroni.
		return "", fmt.Errorf("%w: %w", errNotTaken, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, r.op.limit()-r.op.budget(), errors.New("no new primary in time"))
	defer cancel()
	client := r.Patroni
	if client == nil {
		client = &patroni.Client{}
	}
	answer := make(chan error, 1)
	go func() { answer <- client.Switchover(ctx, leader.API, r.rec.From, r.rec.To) }()

	// The new primary is seen long before Patroni answers: its handler looks once a second.
	seen := make(chan error, 1)
	wctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		seen <- r.await(wctx, func() bool {
			return r.lead.Phase == patroni.Writable && r.lead.Epoch.Compare(r.rec.Epoch, r.lead.Addr == r.before) == patroni.Newer
		})
	}()
	var failed, refusal error // why it is not seen, and Patroni's refusal
	select {
	case failed = <-seen:
		cancel()
		refusal = refused(<-answer)
	case err := <-answer:
		if refusal = refused(err); refusal != nil {
			stop()
		}
		failed = <-seen
	}
	if failed == nil { // proven, whatever was answered
		return r.tookOver(), nil
	}
	if refusal != nil {
		return "", fmt.Errorf("%w: %w", errNotTaken, refusal)
	}
	return "", failed
}

// refused is the answer of Patroni if it is one that says that nothing was begun.
func refused(answer error) error {
	if errors.Is(answer, patroni.ErrUnknown) && !mutant.Is("law7-evidence-decides") {
		return nil
	}
	return answer
}

// tookOver reports the new primary that was seen.
func (r *coordination) tookOver() string {
	r.report.After = r.lead.Epoch
	if r.lead.Member != r.rec.To {
		r.report.Notes = append(r.report.Notes, fmt.Sprintf("%s took over instead of %s", r.lead.Member, r.rec.To))
		r.report.To = r.lead.Member
	}
	return r.lead.Member + " is proven writable at epoch " + r.lead.Epoch.String()
}

func (r *coordination) routed(ctx context.Context, names []string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, r.op.limit(), errors.New("not in time"))
	defer cancel()
	var missing []string
	err := r.await(ctx, func() bool {
		missing = unrouted(names, r.poolers, func(p record.Pooler) bool {
			o := p.Epoch.Compare(r.report.After, true)
			return p.State == string(Routed) && (o == patroni.Same || o == patroni.Newer)
		})
		return len(missing) == 0
	})
	if err != nil {
		return "", fmt.Errorf("not routed: %s: %w", strings.Join(missing, ", "), err)
	}
	return fmt.Sprintf("%d poolers are routed on their own proof", len(names)), nil
}

// reread learns the version of our record after a write that failed; an error: it is ours no more.
func (r *coordination) reread(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
		snap, err := r.Store.Get(ctx, record.Dir(r.Path))
		if err != nil {
			continue // the store is in trouble
		}
		e, _ := snap.Get(record.OperationKey(r.Path))
		if o, err := record.Decode[record.Operation](e); err != nil || o.ID != r.rec.ID {
			return errors.New("the operation's record is gone")
		}
		r.version = e.Version
		return nil
	}
}

// release calls the operation off: agents resume on proof. It also works when ctx has ended.
func (r *coordination) release(ctx context.Context, w dcs.Writer, names []string, step string, why error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err := r.step("undo", func() (string, error) {
		for {
			err := r.phase(ctx, w, record.Release)
			if err == nil {
				break
			}
			// Without it the record goes with our lease, and agents that saw the switch phase wait until its time is over.
			if errors.Is(err, dcs.ErrLeaseLost) {
				return "", err
			}
			if rerr := r.reread(ctx); rerr != nil {
				return "", errors.Join(err, rerr)
			}
		}
		var missing []string
		err := r.await(ctx, func() bool {
			missing = unrouted(names, r.poolers, func(p record.Pooler) bool { return p.State == string(Routed) })
			return len(missing) == 0
		})
		if err != nil {
			return "", fmt.Errorf("not yet routed again: %s", strings.Join(missing, ", "))
		}
		return "all poolers are routed to the old primary", nil
	})
	if err != nil {
		r.report.Notes = append(r.report.Notes, "undo: "+err.Error())
	}
	return &AbortedError{Step: step, Err: why}
}

package topology

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/mutant"
	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/pooler"
)

// act applies the rules until none matches any more, and keeps a held pooler held.
func (r *agentRun) act(ctx context.Context) {
	r.now = time.Now()
	if r.Service == Read {
		r.actRead(ctx)
		return
	}
	there := false
	for range len(writeRules) { // each rule at most once in a round
		r.sawAsked()
		rule := decide(&r.situation)
		if rule == nil {
			break
		}
		if !r.apply(ctx, rule) {
			there = r.serves(ctx, r.aim(rule))
			if r.state == Routed && !there { // what it is on is over
				r.takeHold("a route failed")
			}
			break
		}
	}
	if r.state == Held && !r.isHeld && !there && !r.now.Before(r.holdAt) {
		r.startHold(ctx)
	}
	r.proveAnew(ctx)
	r.askHome(ctx)
	r.wake(ctx)
}

// sawAsked keeps the clock of a hold that was asked for: a duration on our own clock from when we first saw the wish.
func (r *agentRun) sawAsked() {
	w := asker(&r.situation)
	if w.id != "" && w.id != r.asker.id {
		r.asker, r.until = w, r.now.Add(w.limit)
	}
	if w.kind == requests {
		r.heeded = r.lead.Requested
	}
	if w.id != "" && !r.now.Before(r.until) {
		r.over = w.id
		if w.kind == requests {
			r.heard = r.lead.Requested
		}
	}
	is := w.id != "" && w.id != r.over
	if r.asking && !is && r.state == Held {
		// Whatever was proven before the wish ended proves nothing now. Where a stop may still be under way, the old
		// primary is believed again only when it has not come.
		switch {
		case r.over == r.asker.id || r.operation.Phase == record.Release:
			r.doubt = r.now
		case r.committed && !mutant.Is("law6-a-lost-order-releases-nobody"):
			r.doubt = r.until
		case r.asker.kind == stops:
			r.doubt = r.now.Add(afterStop)
		default:
			r.doubt = r.now
		}
	}
	r.asking = is
	r.committed = r.operation.Phase == record.Switch
}

// afterStop is how long a primary must go on serving after a hold for its stop has ended, before it is believed that
// the stop will not come.
const afterStop = time.Second

// grace is how long a hold lasts beyond the time of its operation, for a proof of the old primary.
const grace = 5 * time.Second

func (r *agentRun) apply(ctx context.Context, rule *rule) bool {
	switch rule.do {
	case hold:
		r.takeHold(rule.when)
		r.startHold(ctx)
		return true
	case route:
		if mutant.Is("law8-debounce") {
			time.Sleep(time.Second)
		}
		if !r.push(ctx, r.aim(rule)) {
			return false
		}
		r.epoch, r.home = r.lead.Epoch, r.lead.Addr
	case back, refuse:
		if !r.push(ctx, r.aim(rule)) {
			return false
		}
	}
	r.deadline = time.Time{}
	r.stopWake()
	r.enter(rule.to, rule.when)
	return true
}

// takeHold begins a hold with its deadline, and with the moment that a proof of the same primary must have begun after.
func (r *agentRun) takeHold(reason string) {
	r.deadline = r.now.Add(r.patience)
	r.doubt, r.former = r.now, patroni.Proof{}
	switch {
	case !asked(&r.situation):
		if lost(&r.situation) {
			r.doubt = r.lead.Proof.At // the new proof begins when the source sees what we see
		}
	case r.asker.kind != requests: // whose stop may come, and it may take its time
		r.deadline = r.until.Add(grace)
	}
	r.enter(Held, reason)
}

// serves reports, after a Route that failed, whether it got so far that clients are served by its target: to hold them
// again would help nobody.
func (r *agentRun) serves(ctx context.Context, to pooler.Target) bool {
	st, err := r.readPooler(ctx)
	return err == nil && !st.Held && st.Target.SameHosts(to)
}

// settled reports whether the pooler belongs on the target that it was left on: nothing else is about to be done.
func (r *agentRun) settled() bool {
	if r.Service == Read {
		hosts, _ := r.readHosts()
		return len(hosts) == 0 || slices.Equal(hosts, r.route.Hosts)
	}
	return decide(&r.situation) == nil
}

// aim is the target that a rule routes to; without hosts it refuses.
func (r *agentRun) aim(rule *rule) pooler.Target {
	switch {
	case rule.do == route:
		return pooler.Target{Hosts: []netip.AddrPort{r.lead.Addr}, Mark: r.lead.Epoch.String()}
	case rule.do == back, mutant.Is("law5-resume-unproven"):
		return pooler.Target{Hosts: []netip.AddrPort{r.home}, Mark: r.epoch.String()}
	}
	return pooler.Target{Mark: r.epoch.String()}
}

// push routes the pooler, bounded. A Hold under way is ended first, so that its pause cannot come after the route.
func (r *agentRun) push(ctx context.Context, to pooler.Target) bool {
	r.stopHold()
	rctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := r.Pooler.Route(rctx, to); err != nil {
		r.fail(ctx, "route", err)
		return false
	}
	r.route, r.isHeld, r.drain, r.err = to, false, false, nil
	return true
}

// startHold sends the hold and waits for it elsewhere: the pooler is held from the moment when it is sent.
func (r *agentRun) startHold(ctx context.Context) {
	if r.holding != nil {
		return
	}
	hctx, cancel := context.WithCancel(ctx)
	end := make(chan error, 1) // of its own: the end of an earlier one is never taken for this one's
	r.holding, r.drained, r.heldAt = cancel, end, time.Now()
	r.isHeld, r.drain = true, false
	send := r.Pooler.Hold
	if u, ok := r.Pooler.(urgentHolder); ok && !r.asking {
		send = u.HoldNow
	}
	r.running.Go(func() { end <- send(hctx) })
}

// stopHold ends the Hold under way; the pooler stays held. One that does not heed its context is left behind: Route
// works beside it.
func (r *agentRun) stopHold() {
	if r.holding == nil {
		return
	}
	r.holding()
	select {
	case <-r.drained:
	case <-time.After(100 * time.Millisecond):
	}
	r.holding, r.drained = nil, nil
}

func (r *agentRun) sawHoldEnd(ctx context.Context, err error) {
	r.holding()
	r.holding, r.drained = nil, nil
	if err != nil {
		r.isHeld, r.holdAt = false, time.Now().Add(100*time.Millisecond)
		r.fail(ctx, "hold", err)
		return
	}
	r.drain = true
}

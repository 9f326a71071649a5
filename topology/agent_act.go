package topology

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
	"time"

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
	r.wake(ctx)
}

// sawAsked keeps the clock of a hold that was asked for: a duration on our own clock from when we first saw the wish.
func (r *agentRun) sawAsked() {
	id, limit := asker(&r.situation)
	if id != "" && id != r.asker {
		r.asker, r.until = id, r.now.Add(limit)
	}
	if id != "" && !r.now.Before(r.until) {
		r.over = id
	}
	is := id != "" && id != r.over
	if r.asking && !is && r.state == Held {
		// Whatever was proven before the wish ended proves nothing now. Where a stop may still be under way, the old
		// primary is believed again only when it has not come.
		switch {
		case r.over == r.asker || r.operation.Phase == record.Release:
			r.doubt = r.now
		case r.committed:
			r.doubt = r.until
		case r.asker == r.stop:
			r.doubt = r.now.Add(afterStop)
		default:
			r.doubt = r.now
		}
	}
	r.asking = is
	r.committed = r.operation.Phase == record.Switch
	if id != "" && r.operation.ID != id {
		r.stop = id
	}
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
		if !r.push(ctx, r.aim(rule)) {
			return false
		}
		r.epoch, r.home = r.lead.Epoch, r.lead.Addr
	case refuse:
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
	r.doubt = r.now
	if asked(&r.situation) {
		r.deadline = r.until.Add(grace)
	} else if lost(&r.situation) {
		r.doubt = r.lead.Proof.At // the new proof begins when the source sees what we see
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
	if rule.do == route {
		return pooler.Target{Hosts: []netip.AddrPort{r.lead.Addr}, Mark: r.lead.Epoch.String()}
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

// stuck: nothing but the age of the proof keeps the pooler from its primary.
func (r *agentRun) stuck() bool {
	s := &r.situation
	return (s.state == Held || s.state == Failed) && !asked(s) && s.proven() && s.order() == patroni.Same &&
		!s.lead.At.After(s.doubt) && s.now.After(s.doubt)
}

// proveAnew asks for a proof that begins now, where the one that we have began before the doubt.
func (r *agentRun) proveAnew(ctx context.Context) {
	if r.freshing || !r.stuck() {
		return
	}
	r.freshing = true
	r.running.Go(func() {
		fctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		var found patroni.Leadership
		for l, err := range r.leaders(false).Watch(fctx) {
			if err != nil {
				break
			}
			if l.Phase == patroni.Writable {
				found = l
				break
			}
		}
		if found.Phase != patroni.Writable { // not at once again, whatever the reason
			select {
			case <-time.After(200 * time.Millisecond):
			case <-ctx.Done():
			}
		}
		select {
		case r.fresh <- found:
		case <-ctx.Done():
		}
	})
}

// actRead sends a read pooler to the fresh replicas. With none it goes to the proven primary, and with nothing proven
// it stays where it is; only a pause that was found at start ends at its deadline.
func (r *agentRun) actRead(ctx context.Context) {
	hosts, reason := r.readHosts()
	if len(hosts) == 0 {
		if r.state == Held && expired(&r.situation) && r.push(ctx, pooler.Target{Mark: r.epoch.String()}) {
			r.deadline = time.Time{}
			r.enter(Failed, "the deadline has passed")
		}
		return
	}
	if r.state == Routed && slices.Equal(hosts, r.route.Hosts) {
		r.epoch = r.lead.Epoch
		return
	}
	if slices.ContainsFunc(r.route.Hosts, func(h netip.AddrPort) bool { return !slices.Contains(hosts, h) }) {
		// A server leaves the list: give what reads from it a moment to finish. Route ends what does not.
		hctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		_ = r.Pooler.Hold(hctx) // the best effort is enough
		cancel()
	}
	if r.push(ctx, pooler.Target{Hosts: hosts, Mark: r.lead.Epoch.String()}) {
		r.epoch, r.deadline = r.lead.Epoch, time.Time{}
		r.enter(Routed, reason)
	}
}

// readHosts is where a read pooler belongs, and why; none: nothing better is known than where it is.
func (r *agentRun) readHosts() (hosts []netip.AddrPort, reason string) {
	if o := r.lead.Epoch.Compare(r.epoch, true); r.lead.Epoch.IsZero() || o != patroni.Same && o != patroni.Newer {
		return nil, ""
	}
	for _, rep := range r.lead.Replicas {
		if rep.Fresh {
			hosts = append(hosts, rep.Addr)
		}
	}
	if len(hosts) > 0 {
		return hosts, "fresh replicas"
	}
	if !r.proven() {
		return nil, ""
	}
	return []netip.AddrPort{r.lead.Addr}, "no fresh replica: the primary"
}

// wake makes the Patroni of the lost primary act now. The live agent with the lowest name does it at once, the others
// only when it seems that nobody did.
func (r *agentRun) wake(ctx context.Context) {
	s := &r.situation
	needed := s.state == Held && !r.asking && !s.proven() && !s.lead.Paused && s.lead.API != "" &&
		s.lead.Stale == nil && s.lead.Proof.Err != nil
	if !needed {
		r.stopWake()
		return
	}
	if r.waking != nil || r.nowake.Load() || r.Patroni == nil {
		return
	}
	wctx, cancel := context.WithCancel(ctx)
	r.waking = cancel
	first := 0 * time.Second
	for name := range r.peers {
		if name < r.Name {
			first = 300*time.Millisecond + rand.N(200*time.Millisecond)
		}
	}
	api := s.lead.API
	r.running.Go(func() { r.wakeUntil(wctx, api, first) })
}

// wakeUntil wakes each 250 ms until ctx ends. Refusals end it for good.
func (r *agentRun) wakeUntil(ctx context.Context, api string, first time.Duration) {
	for pause := first; ; pause = 250 * time.Millisecond {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		cctx, cancel := context.WithTimeout(ctx, time.Second)
		err := r.Patroni.Wake(cctx, api)
		cancel()
		var refused *patroni.Error
		if errors.As(err, &refused) && (refused.Status == http.StatusUnauthorized || refused.Status == http.StatusForbidden) {
			r.log.WarnContext(ctx, "Patroni refuses to be woken; a crash will be noticed at its next loop", "error", err)
			r.nowake.Store(true)
			return
		}
	}
}

func (r *agentRun) stopWake() {
	if r.waking != nil {
		r.waking()
		r.waking = nil
	}
}

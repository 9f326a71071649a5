package patroni

import (
	"context"
	"fmt"
	"time"
)

const (
	roundPause    = 500 * time.Millisecond // from the beginning of one round of questions to that of the next
	calmPause     = 2 * time.Second        // the same while the primary that was proven was never lost: nobody waits for it
	questionBound = time.Second            // for each of its questions
)

// outage is what the members are being asked while the store does not answer, in rounds. In one round the last holder
// is asked over SQL and at its REST API, and all others over SQL; what is found rests on answers that were asked for
// after the round began.
type outage struct {
	round *round            // the newest one; nil: none yet
	peers map[string]*probe // of the members whom nobody asks otherwise
	found *finding          // by the last round that is over; nil: none is
	ahead Proof             // the highest timeline that a member was seen writable on, since the store fell silent
	who   string            // that member
}

type round struct {
	began  time.Time
	member string             // the last holder when it began
	stop   context.CancelFunc // ends the question to the REST API
	status *said              // its answer; nil: none yet
	over   bool
}

// said is what a member's Patroni said in a round.
type said struct {
	round  *round
	status Status
	err    error
}

// finding is what a round has found of the last proven leadership.
type finding struct {
	Outage
	epoch  Epoch
	probe  *probe // that gave the SQL answer
	breaks int    // of that answer: a later break ends what it says
}

// lookPast asks the members while the store does not answer. It never waits.
func (w *sourceWatch) lookPast(ctx context.Context) {
	o := w.outage
	if w.Stale == nil || w.epoch.IsZero() {
		if o != nil {
			w.outage = nil
			o.end()
		}
		return
	}
	if o == nil {
		o = &outage{peers: map[string]*probe{}}
		w.outage = o
	}
	if o.round == nil || o.round.over && time.Since(o.round.began) >= w.pace() {
		w.ask(ctx, o)
	}
	all := w.hear(o)
	if r := o.round; !r.over && (all || time.Since(r.began) >= questionBound) {
		r.over = true
		r.stop()
		o.found = w.judge(r)
	}
}

// pace is slow as long as nothing but the store is missing: every agent asks the same primary's Patroni.
func (w *sourceWatch) pace() time.Duration {
	if w.proven {
		return calmPause
	}
	return roundPause
}

func (o *outage) end() {
	o.round.stop()
	for _, pr := range o.peers {
		pr.stop()
	}
}

// ask begins a round.
func (w *sourceWatch) ask(ctx context.Context, o *outage) {
	r := &round{began: time.Now(), member: w.tenure.member, stop: func() {}}
	o.round = r
	for name, home := range w.homes {
		pr := o.peers[name]
		needed := home.ask.IsValid() && name != w.tenure.member && w.standbys[name] == nil
		if pr != nil && (!needed || pr.addr != home.ask) {
			pr.stop()
			delete(o.peers, name)
			pr = nil
		}
		if needed && pr == nil {
			o.peers[name] = w.probe(ctx, home.ask)
		}
	}
	if api := w.homes[w.tenure.member].api; w.Client != nil && api != "" {
		ctx, stop := context.WithTimeout(ctx, questionBound)
		r.stop = stop
		w.running.Go(func() {
			status, err := w.Client.Status(ctx, api)
			select {
			case w.statuses <- said{r, status, err}:
			case <-ctx.Done():
			}
		})
	}
}

func (w *sourceWatch) sawStatus(s said) {
	if w.outage != nil && s.round == w.outage.round {
		s.round.status = &s
	}
}

// hear takes the SQL answers. It notes who has gone on without the last proven primary: once seen, that is so. It
// reports whether all questions of the round are answered. Each answer is looked at once, so that both are about the same.
func (w *sourceWatch) hear(o *outage) bool {
	r := o.round
	all := r.status != nil || w.Client == nil || w.homes[w.tenure.member].api == ""
	hear := func(name string, a *answer) {
		if a == nil || a.At.Before(r.began) {
			all = false
		}
		if a == nil || a.Err != nil || !a.Writable || a.SystemID != w.epoch.SystemID {
			return
		}
		if a.Timeline > max(w.epoch.Timeline, o.ahead.Timeline) {
			o.ahead, o.who = a.Proof, name
		}
	}
	if w.primary != nil {
		hear(w.tenure.member, w.answer)
	}
	for _, probes := range []map[string]*probe{w.standbys, o.peers} {
		for name, pr := range probes {
			hear(name, pr.newest.Load())
		}
	}
	return all
}

// judge says whether the last proven leadership goes on by failsafe mode.
func (w *sourceWatch) judge(r *round) *finding {
	f := &finding{Outage: Outage{At: r.began}, epoch: w.epoch, probe: w.primary}
	if f.Reason = w.doubtful(r); f.Reason == "" {
		f.Failsafe, f.Reason, f.breaks = true, w.holder+" goes on as the primary by failsafe mode", w.answer.breaks
	}
	return f
}

// doubtful is why a round has not shown that failsafe mode keeps the last proven primary; empty: it has.
func (w *sourceWatch) doubtful(r *round) string {
	name, home, a := w.holder, w.homes[w.holder], w.answer
	switch {
	case w.tenure.member != name || r.member != name:
		return fmt.Sprintf("%s has taken the leader key from %s and was never proven", w.tenure.member, name)
	case w.Config.StandbyCluster:
		return name + " leads a standby cluster"
	case w.primary == nil:
		return fmt.Sprintf("the address of %s is not known: %s", name, home.problem())
	case a == nil || a.At.Before(r.began):
		return name + " has not answered over SQL in time"
	case a.Err != nil:
		return a.Err.Error()
	case !a.Writable:
		return name + " is in recovery"
	case a.SystemID != w.epoch.SystemID:
		return fmt.Sprintf("%s is database %s and the cluster is %s", name, a.SystemID, w.epoch.SystemID)
	case a.Timeline != w.epoch.Timeline:
		return fmt.Sprintf("%s is writable on timeline %d and was proven on %d", name, a.Timeline, w.epoch.Timeline)
	case w.Client == nil:
		return fmt.Sprintf("%s is writable; there is no client to ask its Patroni for failsafe mode", name)
	case home.api == "":
		return fmt.Sprintf("%s is writable; the address of its REST API is not known", name)
	case r.status == nil:
		return fmt.Sprintf("%s is writable; its Patroni has not answered in time", name)
	case r.status.err != nil:
		return fmt.Sprintf("%s is writable; its Patroni does not answer: %v", name, r.status.err)
	}
	switch s := r.status.status; {
	case s.Patroni.Name != "" && s.Patroni.Name != name:
		return fmt.Sprintf("%s is writable; at the address of its REST API is %s", name, s.Patroni.Name)
	case s.SystemID != "" && s.SystemID != w.epoch.SystemID:
		return fmt.Sprintf("%s is writable; its Patroni is of database %s", name, s.SystemID)
	case s.Role != RolePrimary:
		return fmt.Sprintf("%s is writable; its Patroni says that it is a %s", name, s.Role)
	case s.Timeline != 0 && s.Timeline != w.epoch.Timeline:
		return fmt.Sprintf("%s is writable; its Patroni says timeline %d, it was proven on %d", name, s.Timeline, w.epoch.Timeline)
	case !s.Failsafe:
		return name + " is writable; its Patroni does not say that failsafe mode is active"
	}
	return ""
}

// pastLevel is what the outage has shown by now; nil: there is none, or it has not shown anything yet.
func (w *sourceWatch) pastLevel() *Outage {
	o := w.outage
	if o == nil {
		return nil
	}
	gone := o.ahead.Timeline > w.epoch.Timeline
	if o.found == nil && !gone {
		return nil
	}
	l := Outage{At: o.round.began}
	if f := o.found; f != nil {
		l = f.Outage
		if f.Failsafe && (f.epoch != w.epoch || f.probe != w.primary || w.answer == nil || w.answer.breaks != f.breaks) {
			l.Failsafe, l.Reason = false, w.holder+" was lost since it was asked"
		}
	}
	if gone {
		l.Failsafe, l.Ahead, l.Reason = false, o.who, fmt.Sprintf("%s is writable on timeline %d", o.who, o.ahead.Timeline)
	}
	return &l
}

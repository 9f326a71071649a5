package topology

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"path"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/mutant"
	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/pooler"
)

// Observer reads a stack. It cannot write, by type, and delays nobody.
//
// Rights: to read the cluster's directory, /pgconvoy<Path> and, for Events, /pgconvoy-history<Path>, and what Leaders and
// Console need.
type Observer struct {
	Path    string
	Store   dcs.Reader
	Leaders LeaderSource // nil: a patroni.Source over Store without a prober; it knows who holds the key and proves nothing

	// Console reads what the pooler of that name, which clients reach at addr, is doing: [PoolView]. Each pooler is
	// asked at most once a second, all at the same time; a call must end when its context does, which is after a second.
	// nil: no pooler is asked.
	Console func(ctx context.Context, name string, addr netip.AddrPort) (pooler.State, error)
}

// Validate is what the other methods check first.
func (o *Observer) Validate() error {
	if err := CheckPath(o.Path); err != nil {
		return fmt.Errorf("topology: Observer.%w", err)
	}
	if o.Store == nil {
		return errors.New("topology: Observer.Store is missing")
	}
	return nil
}

// View reads everything once. It is bounded by ctx and 2 s, whatever is dead; parts of the store that did not answer are
// missing, and Stale says why. A primary that was not proven in this time is no such part. Consoles that are slower than the rest by more than 0.5 s are not waited for.
func (o *Observer) View(ctx context.Context) View {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Second, errors.New("not confirmed within 2 s"))
	defer cancel()
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	var slow *time.Timer
	var last View
	for v, err := range o.watch(ctx) {
		if err != nil {
			if v.Stale == "" && !v.complete && (!v.answered || ctx.Err() == nil) { // else only a proof was missing
				v.Stale = err.Error()
			}
			return v.View
		}
		last = v.View
		if v.complete && v.figures {
			break
		}
		if v.complete && slow == nil {
			slow = time.AfterFunc(500*time.Millisecond, func() { leave(nil) })
			defer slow.Stop()
		}
	}
	return last
}

// Watch yields a View with each change, and at least once a second while it is stale, so that its age can be seen to
// grow. Views are levels: one that says the same as the last but for its times may come at any moment. A non-nil error is
// the last pair.
func (o *Observer) Watch(ctx context.Context) iter.Seq2[View, error] {
	return func(yield func(View, error) bool) {
		for v, err := range o.watch(ctx) {
			if !yield(v.View, err) || err != nil {
				return
			}
		}
	}
}

// partial is a View that may not have heard from all parts yet.
type partial struct {
	View
	answered bool // the store has
	complete bool // all but the consoles have
	figures  bool // and so have these, or failed to
}

// calm is how long figures of consoles are gathered before they make a View.
const calm = 100 * time.Millisecond

func (o *Observer) watch(ctx context.Context) iter.Seq2[partial, error] {
	return func(yield func(partial, error) bool) {
		p := parts{path: o.Path}
		if err := o.Validate(); err != nil {
			yield(partial{View: p.view()}, err)
			return
		}
		leaders := o.Leaders
		if leaders == nil {
			leaders = &patroni.Source{Store: o.Store, Path: o.Path}
		}
		wctx, cancel := context.WithCancel(ctx)
		leads, w1 := dcs.Latest(leaders.Watch(wctx))
		dir := o.Path
		if mutant.Is("law12-own-cluster-alone") {
			dir = path.Dir(dir)
		}
		theirs, w2 := dcs.Latest(o.Store.Watch(wctx, dir))
		ours, w3 := dcs.Latest(o.Store.Watch(wctx, record.Dir(o.Path)))
		consoles := &pools{ask: o.Console, news: make(chan struct{}, 1), asked: map[string]*console{}}
		tick := time.NewTicker(time.Second)
		defer func() {
			tick.Stop()
			cancel()
			_, _, _ = w1(), w2(), w3() // yielded below
			consoles.running.Wait()
		}()
		var gathered <-chan time.Time
		for {
			var ended func() error // the watch that ended
			select {
			case v, open := <-leads:
				if open {
					p.lead = v
				} else {
					ended = w1
				}
			case v, open := <-theirs:
				if !open {
					ended = w2
					break
				}
				p.theirs = v
				p.cluster, _ = patroni.Parse(o.Path, v) // the path was checked
			case v, open := <-ours:
				if !open {
					ended = w3
					break
				}
				p.saw(v)
				consoles.follow(wctx, p.fleet)
			case <-consoles.news:
				if gathered == nil {
					gathered = time.After(calm)
				}
				continue
			case <-gathered:
				gathered = nil
			case <-tick.C:
				if p.theirs.Stale == nil && p.ours.Stale == nil && p.lead.Stale == nil {
					continue
				}
			}
			var v partial
			p.pools, v.figures = consoles.views()
			v.View, v.answered, v.complete = p.view(), p.answered(), p.complete(o.Leaders != nil)
			if ended != nil {
				err := context.Cause(ctx)
				if err == nil {
					err = orEnded(ended())
				}
				yield(v, err)
				return
			}
			if !yield(v, nil) {
				return
			}
		}
	}
}

// answered reports whether the store has told everything that it is asked for.
func (p *parts) answered() bool {
	return p.theirs.Known() && p.ours.Known() && p.lead.Phase != patroni.Unknown
}

// complete reports whether the store has answered, and the source of leadership has said what it can prove.
func (p *parts) complete(proves bool) bool {
	proving := proves && p.lead.Phase != patroni.Writable && p.lead.Phase != patroni.Vacant
	return p.answered() && !proving
}

package topology

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
)

// Observer reads a stack. It cannot write, by type, and delays nobody.
type Observer struct {
	Path    string
	Store   dcs.Reader
	Leaders LeaderSource // nil: a patroni.Source over Store without a prober; it knows who holds the key and proves nothing
}

// View reads everything once. It is bounded by ctx and 2 s, whatever is dead; parts that did not answer are missing,
// and Stale says why.
func (o *Observer) View(ctx context.Context) View {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Second, errors.New("not confirmed within 2 s"))
	defer cancel()
	var last View
	for v, err := range o.watch(ctx) {
		if err != nil {
			if v.Stale == "" && !v.complete {
				v.Stale = err.Error()
			}
			return v.View
		}
		last = v.View
		if v.complete {
			break
		}
	}
	return last
}

// Watch yields a View with each change. A non-nil error is the last pair.
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
	complete bool
}

func (o *Observer) watch(ctx context.Context) iter.Seq2[partial, error] {
	return func(yield func(partial, error) bool) {
		if err := o.Validate(); err != nil {
			yield(partial{}, err)
			return
		}
		leaders := o.Leaders
		if leaders == nil {
			leaders = &patroni.Source{Store: o.Store, Path: o.Path}
		}
		wctx, cancel := context.WithCancel(ctx)
		leads, w1 := dcs.Latest(leaders.Watch(wctx))
		clusters, w2 := dcs.Latest(patroni.Watch(wctx, o.Store, o.Path))
		ours, w3 := dcs.Latest(o.Store.Watch(wctx, record.Dir(o.Path)))
		defer func() {
			cancel()
			_, _, _ = w1(), w2(), w3() // yielded below
		}()
		var l patroni.Leadership
		var c patroni.Cluster
		var s dcs.Snapshot
		for {
			var ended func() error // the watch that ended
			select {
			case v, open := <-leads:
				if open {
					l = v
				} else {
					ended = w1
				}
			case v, open := <-clusters:
				if open {
					c = v
				} else {
					ended = w2
				}
			case v, open := <-ours:
				if open {
					s = v
				} else {
					ended = w3
				}
			}
			v := partial{View: view(o.Path, c, l, s)}
			proving := o.Leaders != nil && l.Phase != patroni.Writable && l.Phase != patroni.Vacant
			v.complete = c.Known() && s.Known() && l.Phase != patroni.Unknown && !proving
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

// Validate is what Watch and View check first.
func (o *Observer) Validate() error {
	if err := CheckPath(o.Path); err != nil {
		return fmt.Errorf("topology: Observer.%w", err)
	}
	if o.Store == nil {
		return errors.New("topology: Observer.Store is missing")
	}
	return nil
}

// view puts the parts together.
func view(path string, c patroni.Cluster, l patroni.Leadership, s dcs.Snapshot) View {
	v := View{
		At: time.Now(), Path: path, Paused: c.Config.Paused, Confirmed: c.At,
		Leadership: LeadershipView{l.Phase.String(), l.Member, l.Addr, l.Epoch, l.Reason, l.At},
	}
	if err := c.Stale; err != nil { // of one store: one of the two says enough
		v.Stale = err.Error()
	} else if err := s.Stale; err != nil {
		v.Stale = err.Error()
	}
	for _, m := range c.Members {
		v.Members = append(v.Members, MemberView{
			m.Name, m.Host, m.Proxy, m.API, string(m.Role), m.State, m.ReplicationState, m.Timeline, m.LSN, c.Sync.Has(m.Name),
		})
	}
	fleet, err1 := record.FleetOf(s, path)
	poolers, err2 := record.PoolersOf(s, path)
	planes, err3 := record.ControlPlanesOf(s, path)
	op, operates, err4 := record.OperationOf(s, path)
	if err := errors.Join(err1, err2, err3, err4); err != nil && v.Stale == "" {
		v.Stale = err.Error()
	}
	for _, name := range slices.Sorted(maps.Keys(fleet)) {
		f := fleet[name]
		a, live := poolers[name]
		v.Poolers = append(v.Poolers, PoolerView{
			name, f.Service, f.Address, live, PoolerState(a.State), a.Target, a.Epoch, a.Operation, a.Since, a.Reason, a.Error,
		})
	}
	for _, name := range slices.Sorted(maps.Keys(planes)) {
		cp := ControlPlaneView{Name: name, Services: map[string]ServiceView{}}
		for service, st := range planes[name].Services {
			cp.Services[service] = ServiceView(st)
		}
		v.ControlPlanes = append(v.ControlPlanes, cp)
	}
	if operates && err4 == nil {
		v.Operation = &OperationView{op.ID, op.Kind, op.From, op.To, op.Phase, op.Owner, op.Since}
	}
	return v
}

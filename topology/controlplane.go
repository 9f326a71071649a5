package topology

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/envoyconf"
	"github.com/pgconvoy/pgconvoy/internal/record"
)

// ControlPlane serves the fleet to load balancers: it follows the roster and the registrations, hands each service's
// endpoints to its Router, and publishes what the balancers have applied. Any number of them run side by side, without
// election: the same store gives the same endpoints.
//
// An endpoint stays until its roster entry goes; a registration that expired changes nothing.
type ControlPlane struct {
	Cluster        // Leaders and Prober are not used
	Name    string // unique among the control planes; no slash
	Router  Router

	once once
}

// Validate is what Run checks first.
func (c *ControlPlane) Validate() error {
	var errs []error
	if err := CheckPath(c.Path); err != nil {
		errs = append(errs, fmt.Errorf("topology: ControlPlane.%w", err))
	}
	if c.Store == nil {
		errs = append(errs, errors.New("topology: ControlPlane.Store is missing"))
	}
	if c.Router == nil {
		errs = append(errs, errors.New("topology: ControlPlane.Router is missing"))
	}
	errs = append(errs, checkName("ControlPlane.Name", c.Name))
	return errors.Join(errs...)
}

// Run works until ctx ends and returns its cause; any other error is a wrong field, refused credentials, or a control
// plane that is running already. The balancers keep the last endpoints.
func (c *ControlPlane) Run(ctx context.Context) error {
	if err := c.Validate(); err != nil {
		return err
	}
	if err := c.once.enter("ControlPlane"); err != nil {
		return err
	}
	defer c.once.leave()
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()

	r := &controlRun{
		ControlPlane: c, log: c.logger().With("controlplane", c.Name, "cluster", c.Path),
		set: map[string][]envoyconf.Endpoint{}, versions: map[string]string{}, news: make(chan record.ControlPlane, 1),
	}
	running.Go(func() { r.publish(ctx) })
	return r.run(ctx)
}

type controlRun struct {
	*ControlPlane
	log      *slog.Logger
	set      map[string][]envoyconf.Endpoint // what the router has
	versions map[string]string
	news     chan record.ControlPlane
	told     record.ControlPlane
}

func (r *controlRun) run(ctx context.Context) error {
	wctx, cancel := context.WithCancel(ctx)
	ours, wait := dcs.Latest(r.Store.Watch(wctx, record.Dir(r.Path)))
	defer func() {
		cancel()
		_ = wait() // returned below
	}()
	reporter, _ := r.Router.(envoyReporter)
	var again <-chan time.Time
	var last dcs.Snapshot
	for {
		var changed <-chan struct{}
		if reporter != nil {
			changed = reporter.Changed()
			r.report(reporter.Envoys())
		}
		select {
		case s, ok := <-ours:
			if !ok {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				return fmt.Errorf("topology: control plane %s: %w", r.Name, orEnded(wait()))
			}
			last = s
		case <-changed:
			continue
		case <-again:
		}
		again = nil
		if err := r.apply(ctx, last); err != nil {
			r.log.WarnContext(ctx, "endpoints were not set; tried again", "error", err)
			again = time.After(200 * time.Millisecond)
		}
	}
}

// apply hands changed services to the router. A store that never answered changes nothing.
func (r *controlRun) apply(ctx context.Context, s dcs.Snapshot) error {
	if !s.Known() {
		return nil
	}
	fleet, err := record.FleetOf(s, r.Path)
	if err != nil {
		return err // an endpoint that cannot be read must not vanish
	}
	poolers, _ := record.PoolersOf(s, r.Path) // registrations only mark
	next := endpoints(fleet, poolers)
	for service := range r.set { // a service that lost its last pooler by an operator's hand
		if _, ok := next[service]; !ok {
			next[service] = nil
		}
	}
	var errs []error
	for service, e := range next {
		if old, ok := r.set[service]; ok && slices.Equal(old, e) {
			continue
		}
		version, err := r.Router.Set(ctx, service, e)
		if err != nil {
			errs = append(errs, fmt.Errorf("service %s: %w", service, err)) // the other services go on
			continue
		}
		r.set[service], r.versions[service] = e, version
		r.log.InfoContext(ctx, "endpoints", "service", service, "version", version, "endpoints", len(e))
	}
	return errors.Join(errs...)
}

// endpoints makes each service's endpoints from the roster. A pooler that refuses its clients gets no new ones as long
// as another of its service does better.
func endpoints(fleet map[string]record.Fleet, poolers map[string]record.Pooler) map[string][]envoyconf.Endpoint {
	serving := map[string]bool{}
	for name, f := range fleet {
		if poolers[name].State != string(Failed) {
			serving[f.Service] = true
		}
	}
	out := map[string][]envoyconf.Endpoint{}
	for name, f := range fleet {
		e := envoyconf.Endpoint{Addr: f.Address}
		if poolers[name].State == string(Failed) && serving[f.Service] {
			e.Health = envoyconf.Unhealthy
		}
		out[f.Service] = append(out[f.Service], e)
	}
	for service, e := range out {
		slices.SortFunc(e, func(a, b envoyconf.Endpoint) int {
			return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Health, b.Health))
		})
		// A pooler that was renamed has two entries until the old one is removed: one endpoint, of the better health.
		out[service] = slices.CompactFunc(e, func(a, b envoyconf.Endpoint) bool { return a.Addr == b.Addr })
	}
	return out
}

// report makes the record of what the balancers have applied.
func (r *controlRun) report(envoys []envoyconf.EnvoyStatus) {
	p := record.ControlPlane{Services: map[string]record.ServiceState{}}
	for service, version := range r.versions {
		st := record.ServiceState{Version: version}
		for _, e := range envoys {
			st.Envoys = append(st.Envoys, e.Node)
			if e.Applied[service] == version {
				st.Applied = append(st.Applied, e.Node)
			}
			if why, ok := e.Rejected[service]; ok {
				if st.Rejected == nil {
					st.Rejected = map[string]string{}
				}
				st.Rejected[e.Node] = why
			}
		}
		slices.Sort(st.Envoys)
		slices.Sort(st.Applied)
		p.Services[service] = st
	}
	if reflect.DeepEqual(p, r.told) {
		return
	}
	r.told = p
	offer(r.news, p)
}

func (r *controlRun) publish(ctx context.Context) {
	publish(ctx, r.Store, record.ControlPlaneKey(r.Path, r.Name), r.news,
		func(p record.ControlPlane) []byte { return record.Encode(&p) }, nil,
		func(err error) { r.log.WarnContext(ctx, "the record is not kept; tried again", "error", err) })
}

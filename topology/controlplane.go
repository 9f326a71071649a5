package topology

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/mutant"
	"github.com/pgconvoy/pgconvoy/internal/record"
)

// ControlPlane serves the fleet to load balancers: it follows the roster and the registrations, hands each service's
// endpoints to its Router, and publishes what the balancers have applied. Any number of them run side by side, without
// election: the same roster and registrations give the same endpoints, and so the same version.
//
// An endpoint stays until its roster entry goes; a registration that expired changes nothing: a pooler that was last seen
// failed does not get well by it, except for a control plane that has started since and does not know. One that an operator
// drains ([Fleet]) gets no new clients and keeps those that it has. A service that ever had an endpoint is never left
// without one: when the roster has none any more, the last ones stay, and so do all while the store does not answer or a
// roster entry cannot be read.
//
// Rights: to read and to write below /pgconvoy<Path>.
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
		instance: rand.Text(), services: map[string]served{}, failed: map[string]bool{}, news: make(chan record.ControlPlane, 1),
	}
	running.Go(func() { r.publish(ctx) })
	return r.run(ctx)
}

// controlRun is one Run. Only run's goroutine touches it, except for the channel.
type controlRun struct {
	*ControlPlane
	log      *slog.Logger
	instance string
	services map[string]served // what the router has
	failed   map[string]bool   // the poolers of the roster that were last seen failed
	said     string            // the trouble that was logged last: one that stays is logged once

	news chan record.ControlPlane
	told record.ControlPlane
	ours bool   // the store has our record
	twin string // another run of our name
}

// served is what the router has of one service.
type served struct {
	assigned
	version string
	kept    string // why it is not what the roster says
}

// setLimit bounds one call of the router.
const setLimit = 5 * time.Second

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
		} else {
			r.report(nil)
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
			r.sawRecord(ctx, s)
		case <-changed:
			continue
		case <-again:
		}
		again = nil
		if !r.apply(ctx, last) {
			again = time.After(200 * time.Millisecond)
		}
	}
}

// apply hands changed services to the router; false: not all were taken. A store that never answered changes nothing.
func (r *controlRun) apply(ctx context.Context, s dcs.Snapshot) bool {
	trusting := s.Stale != nil && mutant.Is("law1-controlplane-empties")
	if trusting {
		s = dcs.NewSnapshot(time.Now(), nil) // trouble is taken for an answer
	}
	if !s.Known() {
		return true
	}
	fleet, unread := record.FleetOf(s, r.Path)
	poolers, _ := record.PoolersOf(s, r.Path) // registrations only mark
	if unread == nil {
		r.remember(fleet, poolers)
	}
	next := assign(fleet, poolers)
	errs := []error{unread}
	failed := false
	for service, a := range next {
		if _, has := r.services[service]; has && unread != nil {
			continue // an endpoint that cannot be read must not vanish
		}
		if err := r.set(ctx, service, a); err != nil {
			failed = true
			errs = append(errs, fmt.Errorf("service %s: %w", service, err)) // the other services go on
		}
	}
	for service := range r.services {
		if unread != nil {
			r.keep(ctx, service, "the roster cannot be read: "+unread.Error())
			continue
		}
		if _, ok := next[service]; ok {
			continue
		}
		if trusting || mutant.Is("law9-empty-published") {
			_ = r.set(ctx, service, assigned{})
			continue
		}
		r.keep(ctx, service, "the roster has no pooler of this service")
	}
	r.say(ctx, errors.Join(errs...))
	return !failed
}

// remember adds to the registrations those that have expired as failed, as long as the roster has the pooler.
func (r *controlRun) remember(fleet map[string]record.Fleet, poolers map[string]record.Pooler) {
	maps.DeleteFunc(r.failed, func(name string, _ bool) bool { _, there := fleet[name]; return !there })
	for name := range fleet {
		if p, live := poolers[name]; live {
			r.failed[name] = p.State == string(Failed)
		} else if r.failed[name] {
			poolers[name] = record.Pooler{State: string(Failed)}
		}
	}
}

// set hands a service to the router where it differs from what the router has.
func (r *controlRun) set(ctx context.Context, service string, a assigned) error {
	old, ok := r.services[service]
	if ok && slices.Equal(old.endpoints, a.endpoints) {
		old.draining, old.kept = a.draining, ""
		r.services[service] = old
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, setLimit)
	defer cancel()
	version, err := r.Router.Set(ctx, service, a.endpoints)
	if err != nil {
		return err
	}
	r.services[service] = served{assigned: a, version: version}
	r.log.InfoContext(ctx, "endpoints", "service", service, "version", version, "endpoints", len(a.endpoints), "draining", a.draining)
	return nil
}

// keep leaves a service's last endpoints with the router.
func (r *controlRun) keep(ctx context.Context, service, why string) {
	s := r.services[service]
	if s.kept == why {
		return
	}
	s.kept = why
	r.services[service] = s
	r.log.WarnContext(ctx, "the last endpoints are kept", "service", service, "version", s.version, "reason", why)
}

// say logs trouble when it begins or changes.
func (r *controlRun) say(ctx context.Context, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != r.said {
		r.log.WarnContext(ctx, "endpoints were not set; tried again", "error", err)
	}
	r.said = text
}

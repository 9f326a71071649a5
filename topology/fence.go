package topology

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/patroni"
)

// Fencer takes a node out: it powers it off, or cuts it off. It is the platform's own: a cloud's API, a hypervisor, IPMI.
//
// nil means confirmed: the node is off, or reaches neither clients nor the store nor replicas, and does not come back by
// itself as it was. Any error means not confirmed: also when the order was given and nobody knows what became of it. Fence
// is called for a node that seems dead, once, and must end when ctx does.
type Fencer interface {
	Fence(ctx context.Context, m patroni.Member) error
}

// Fencing has a dead primary's node fenced, and ends its claim to the leader key when that is confirmed, so that Patroni
// elects at once. It is off unless somebody runs it, and the one part of this SDK that takes something from Patroni in the
// store.
//
// # What it buys
//
// When a whole node dies, Patroni and PostgreSQL in one moment, its claim lasts until Patroni's ttl is over: 20 s or more
// in which clients are held. With a fencer that confirms at once it is over after After, the fencer's own time and an
// election of some tenths of a second, where the dead host refuses connections. Where it keeps silent instead, it takes
// some 4 s more: Patroni's other members ask it in vain for 2 s before they elect, and here the first and the last question
// take a second each.
//
// # What it cannot
//
// It does not see more than others: a node that its network has forgotten looks like one that is off. Whether it is off
// the Fencer alone decides, so a Fencer that confirms what is not so is the danger. Even then the claim ends as a whole,
// lease or session and not only the key: the node finds at its next renewal that it holds nothing, and Patroni demotes it.
// Until then it may still serve whoever reaches it past the poolers. What waits for a synchronous standby that has left
// it, it does not acknowledge; with quorum commit and more standbys it still acknowledges through another one, until that
// one has turned to the new primary, too.
//
// A primary whose Patroni or whose PostgreSQL answers is never fenced: Patroni itself ends what is half dead. A replica
// never is. Without synchronous replication nothing is, for nobody could say what would be lost. A failed fence costs
// nothing but its time: Patroni's ttl goes on, and a later proof that the node is back ends all thought of it.
//
// # When
//
// The primary was proven here under the claim that it holds now; since After neither its PostgreSQL nor its REST API has
// given an answer; the store is current; the cluster is neither paused nor a standby cluster; a synchronous standby
// answers by both, as a replica on the primary's timeline (with quorum commit, as many as Patroni needs); and nothing was
// fenced in this cluster within Every. All of it is looked at once more under a lock that one fencer at a time has, and
// the attempt is written down before the Fencer is asked, so that a process that dies meanwhile counts. Several may run.
//
// Rights: to read the cluster's directory, to write below /pgconvoy<Path>, and those of the store's [dcs.Revoker].
type Fencing struct {
	Cluster                 // Prober is needed; Store has to be a dcs.Revoker, as those for etcd and Consul are
	Name    string          // of this process, unique among those that fence; no slash
	Fencer  Fencer          // takes a node out
	Patroni *patroni.Client // asks the members' REST APIs; nil: a client of its own, for reading needs no rights

	After time.Duration // how long a primary must be silent before it is fenced; 0: 3 s
	// Every: at most one attempt in this time, whoever makes it, by the clocks of those who do; 0: 10 min. One that was
	// given up because the store did not say whether it was written down counts, too, if it was.
	Every time.Duration
	Bound time.Duration // of one call of Fence; 0: 30 s

	once once
}

// Validate is what Run checks first.
func (f *Fencing) Validate() error {
	errs := []error{f.Cluster.validate("Fencing")}
	if f.Prober == nil && f.Leaders != nil {
		errs = append(errs, errors.New("topology: Fencing.Prober is missing: without it no standby is ever known to be able to take over"))
	}
	if _, ok := f.Store.(dcs.Revoker); !ok && f.Store != nil {
		errs = append(errs, errors.New("topology: Fencing.Store cannot end a claim: it is no dcs.Revoker, as those for etcd and Consul are"))
	}
	if err := checkName("Fencing.Name", f.Name); err != nil {
		errs = append(errs, err)
	}
	if f.Fencer == nil {
		errs = append(errs, errors.New("topology: Fencing.Fencer is missing"))
	}
	for name, d := range map[string]time.Duration{"After": f.After, "Every": f.Every, "Bound": f.Bound} {
		if d < 0 {
			errs = append(errs, fmt.Errorf("topology: Fencing.%s is negative", name))
		}
	}
	return errors.Join(errs...)
}

// Run works until ctx ends and returns its cause; any other error is a wrong field, refused credentials, or one that is
// running already. A Fence under way when ctx ends is not confirmed.
func (f *Fencing) Run(ctx context.Context) error {
	if err := f.Validate(); err != nil {
		return err
	}
	if err := f.once.enter("Fencing"); err != nil {
		return err
	}
	defer f.once.leave()

	ctx, cancel := context.WithCancelCause(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel(nil)

	r := &fencingRun{
		Fencing: f, log: f.logger().With("fencing", f.Name, "cluster", f.Path),
		client: cmp.Or(f.Patroni, &patroni.Client{}), vigil: vigil{changed: make(chan struct{}, 1)},
		after: cmp.Or(f.After, 3*time.Second), every: cmp.Or(f.Every, 10*time.Minute), bound: cmp.Or(f.Bound, 30*time.Second),
	}
	running.Go(func() {
		if err := r.watch(ctx, f.leaders(patroni.Source{})); ctx.Err() == nil {
			cancel(fmt.Errorf("topology: fencing %s: %w", f.Name, orEnded(err)))
		}
	})
	r.run(ctx)
	return context.Cause(ctx)
}

// fencingRun is one Run. Only run's goroutine touches it, except for the vigil.
type fencingRun struct {
	*Fencing
	vigil
	log                 *slog.Logger
	client              *patroni.Client
	after, every, bound time.Duration

	silent time.Time // since when the REST API of whom has given no answer; zero: it has
	whom   patroni.Epoch
	rest   time.Time // nothing is considered before this

	said lately // the last refusal that was logged
}

// run asks a primary that is lost to SQL by REST, again and again, and considers to fence it when it was silent for long
// enough.
func (r *fencingRun) run(ctx context.Context) {
	for {
		var again <-chan time.Time
		if _, lost := r.level(); !lost.IsZero() {
			again = time.After(min(max(r.after/4, 10*time.Millisecond), 250*time.Millisecond))
		}
		select {
		case <-ctx.Done():
			return
		case <-r.changed:
		case <-again:
		}
		if l, ok := r.dead(ctx); ok && !time.Now().Before(r.rest) {
			r.consider(ctx, l)
		}
	}
}

// dead asks the primary's REST API where its PostgreSQL is lost. true: both were silent for After, without a break.
func (r *fencingRun) dead(ctx context.Context) (patroni.Leadership, bool) {
	l, lost := r.level()
	if lost.IsZero() {
		r.silent, r.whom, r.said = time.Time{}, patroni.Epoch{}, lately{}
		return l, false
	}
	if l.Epoch != r.whom {
		r.silent, r.whom = time.Time{}, l.Epoch
	}
	asked := time.Now()
	if !r.deaf(ctx, l.API) {
		r.silent = time.Time{}
		return l, false
	}
	if r.silent.IsZero() {
		r.silent = time.Now()
	}
	// A question that was sent After later was in vain, too.
	now, still := r.level()
	return now, !still.IsZero() && now.Epoch == l.Epoch && asked.Sub(later(still, r.silent)) >= r.after
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

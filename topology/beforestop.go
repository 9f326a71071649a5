package topology

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
)

// BeforeStop is what a node's Patroni calls, through its before_stop setting, right before each stop of PostgreSQL: it
// has the fleet hold, later than Patroni's checkpoint and earlier than the first lost connection. It also serves a
// switchover or restart that somebody typed by hand.
//
// Patroni calls it in every stop, also when it demotes because it lost the lock or the store, in its main thread and
// without a timeout, and ignores its result. So Run does nothing unless this node is read to hold the leader key within
// 250 ms, and is over within Budget. It releases nobody: the stop follows in any case.
type BeforeStop struct {
	Path   string
	Store  dcs.Store
	Member string        // the node's name
	Budget time.Duration // how long to wait for the fleet; 0: 2 s
	Limit  time.Duration // how long poolers may hold for the stop; 0: 60 s, for a restart takes its time
}

// Install records that the node's Patroni calls the hook. A switchover leaves the hold to the hooks when all nodes have
// one.
func (b *BeforeStop) Install(ctx context.Context) error {
	if err := b.Validate(); err != nil {
		return err
	}
	snap, err := b.Store.Get(ctx, record.Dir(b.Path))
	if err != nil {
		return err
	}
	key := record.HookKey(b.Path, b.Member)
	if _, ok := snap.Get(key); ok {
		return nil
	}
	_, err = b.Store.Put(ctx, key, record.Encode(&record.Hook{}), dcs.Version{})
	if errors.Is(err, dcs.ErrConflict) {
		return nil // another one was faster
	}
	return err
}

// Validate is what Install and Run check first.
func (b *BeforeStop) Validate() error {
	var errs []error
	if err := CheckPath(b.Path); err != nil {
		errs = append(errs, fmt.Errorf("topology: BeforeStop.%w", err))
	}
	if b.Store == nil {
		errs = append(errs, errors.New("topology: BeforeStop.Store is missing"))
	}
	if b.Member == "" {
		errs = append(errs, errors.New("topology: BeforeStop.Member is empty"))
	}
	return errors.Join(errs...)
}

// Run is one call of the hook. nil: the fleet holds, or it is not for this node to ask.
func (b *BeforeStop) Run(ctx context.Context) error {
	if err := b.Validate(); err != nil {
		return err
	}
	rctx, cancel := context.WithTimeout(ctx, 250*time.Millisecond)
	c, err := patroni.Get(rctx, b.Store, b.Path)
	cancel()
	if err != nil || c.Leader != b.Member || c.Config.StandbyCluster {
		return err
	}
	ctx, cancel = context.WithTimeoutCause(ctx, cmp.Or(b.Budget, 2*time.Second), errors.New("the fleet did not hold in time"))
	defer cancel()
	return b.Store.Lease(ctx, func(ctx context.Context, w dcs.Writer) error {
		r := record.BeforeStop{ID: rand.Text()[:12], Created: c.LeaderVersion.Created, Limit: cmp.Or(b.Limit, time.Minute)}
		if _, err := w.Put(ctx, record.BeforeStopKey(b.Path, b.Member), record.Encode(&r), dcs.Version{}); err != nil {
			return err // a conflict: another one runs already
		}
		for s, err := range b.Store.Watch(ctx, record.Dir(b.Path)) {
			if err != nil {
				return err
			}
			if held, err := fleetHeld(s, b.Path); held || err != nil {
				return err
			}
		}
		return nil
	})
}

// fleetHeld reports whether every live write pooler of the roster holds, with nothing on its servers.
func fleetHeld(s dcs.Snapshot, path string) (bool, error) {
	fleet, err := record.FleetOf(s, path)
	if err != nil || !s.Known() {
		return false, err
	}
	poolers, err := record.PoolersOf(s, path)
	if err != nil {
		return false, err
	}
	for name, f := range fleet {
		p, live := poolers[name]
		if !live || f.Service != Write.String() || p.State == string(Failed) { // refuses clients: nothing runs there
			continue
		}
		if p.State != string(Held) || !p.Drained {
			return false, nil
		}
	}
	return true, nil
}

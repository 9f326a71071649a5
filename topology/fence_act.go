package topology

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/mutant"
	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
)

// errRefused says that there is a reason not to fence.
type errRefused string

func (e errRefused) Error() string { return string(e) }

// consider fences a primary that was silent for long enough, if nothing speaks against it.
func (r *fencingRun) consider(ctx context.Context, l patroni.Leadership) {
	_, err := r.look(ctx, l, false)
	if err == nil { // else there is no need to lock
		err = r.locked(ctx, func(ctx context.Context) error { return r.fence(ctx, l) })
	}
	if err == nil || ctx.Err() != nil {
		return
	}
	r.rest = time.Now().Add(time.Second)
	if r.said.news(err.Error()) {
		r.log.WarnContext(ctx, "a silent primary is not fenced", "member", l.Member, "epoch", l.Epoch.String(), "reason", err)
	}
}

// locked runs f as the one fencer.
func (r *fencingRun) locked(ctx context.Context, f func(ctx context.Context) error) error {
	if mutant.Is("law10-one-fencer-at-a-time") {
		return f(ctx)
	}
	return dcs.Lock(ctx, r.Store, record.FenceKey(r.Path), []byte(r.Name),
		func(ctx context.Context, _ dcs.Writer, _ dcs.Version) error { return f(ctx) })
}

// claim is what a primary holds, as it was read before it was fenced, with the record of all attempts.
type claim struct {
	fenceCase
	member  patroni.Member
	version dcs.Version // of the record
}

// look gathers all that is decided on; an error is the reason not to fence. again: the primary is asked once more, too.
func (r *fencingRun) look(ctx context.Context, l patroni.Leadership, again bool) (claim, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	now, lost := r.level()
	c := claim{fenceCase: fenceCase{lead: now, every: r.every}}
	switch {
	case now.Member != l.Member || now.Epoch != l.Epoch:
		return c, errRefused("another leadership has begun")
	case lost.IsZero():
		return c, errRefused(l.Member + "'s PostgreSQL answers after all")
	}
	var err error
	if c.cluster, err = patroni.Get(ctx, r.Store, r.Path); err != nil {
		return c, err
	}
	ours, err := r.Store.Get(ctx, record.Dir(r.Path))
	if err != nil {
		return c, err
	}
	if c.fences, c.version, err = record.FencesOf(ours, r.Path); err != nil {
		return c, err
	}
	c.member, _ = c.cluster.Member(l.Member)
	r.inquire(ctx, &c, again)
	c.now = time.Now()
	if why := c.refusal(); why != "" {
		return c, errRefused(why)
	}
	return c, nil
}

// inquire asks all whose answer counts, side by side.
func (r *fencingRun) inquire(ctx context.Context, c *claim, again bool) {
	var asking sync.WaitGroup
	c.heirs = make([]fenceHeir, len(c.cluster.Sync.Standbys))
	for i, name := range c.cluster.Sync.Standbys {
		h := &c.heirs[i]
		h.name = name
		for _, m := range c.cluster.Members {
			if strings.EqualFold(m.Name, name) { // PostgreSQL folds the names that it is told
				h.member = m
			}
		}
		if h.member.Name == "" {
			continue
		}
		asking.Go(func() { h.proof = r.ask(ctx, h.member) })
		asking.Go(func() {
			qctx, cancel := context.WithTimeout(ctx, question)
			defer cancel()
			h.status, h.err = r.client.Status(qctx, h.member.API)
		})
	}
	var sql, rest bool
	if again {
		asking.Go(func() { sql = answered(r.ask(ctx, c.member).Err) })
		asking.Go(func() { rest = !r.deaf(ctx, c.member.API) })
	}
	asking.Wait()
	switch {
	case sql:
		c.awake = c.lead.Member + "'s PostgreSQL"
	case rest:
		c.awake = c.lead.Member + "'s Patroni"
	}
}

// fence is the act, under the lock. An error is the reason why the Fencer was not asked.
func (r *fencingRun) fence(ctx context.Context, l patroni.Leadership) error {
	c, err := r.look(ctx, l, true)
	if err != nil {
		return err
	}
	attempt := record.Fence{At: time.Now(), By: r.Name, Member: l.Member, Epoch: l.Epoch, Outcome: record.FenceBegun}
	if c.version, err = r.record(ctx, &c, attempt); err != nil { // else nobody could know of it
		return fmt.Errorf("the attempt cannot be written down: %w", err)
	}
	r.log.WarnContext(ctx, "a dead primary is fenced", "member", l.Member, "epoch", l.Epoch.String(), "silent", time.Since(r.silent))
	fctx, cancel := context.WithTimeout(ctx, r.bound)
	err = r.Fencer.Fence(fctx, c.member)
	if err == nil && fctx.Err() != nil {
		err = fmt.Errorf("confirmed when its time was over: %w", context.Cause(fctx))
	}
	cancel()
	attempt.Outcome, err = r.end(ctx, &c, err)
	attempt.Took = time.Since(attempt.At)
	if err != nil {
		attempt.Error = err.Error()
	}
	r.log.WarnContext(ctx, "fenced", "member", l.Member, "epoch", l.Epoch.String(), "outcome", attempt.Outcome, "took", attempt.Took, "error", err)
	rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if _, err := r.record(rctx, &c, attempt); err != nil {
		r.log.WarnContext(ctx, "the outcome of a fence is not recorded", "error", err)
	}
	return nil
}

// record writes an attempt, if nobody has written one since the record was read.
func (r *fencingRun) record(ctx context.Context, c *claim, f record.Fence) (dcs.Version, error) {
	c.fences = c.fences.With(f)
	return r.Store.Put(ctx, record.FencesKey(r.Path), record.Encode(&c.fences), c.version)
}

// end ends the claim of a member that is confirmed to be off, if it is still the one that was fenced.
func (r *fencingRun) end(ctx context.Context, c *claim, unconfirmed error) (outcome string, err error) {
	if unconfirmed != nil && !mutant.Is("law10-only-a-confirmed-fence-ends") {
		return record.FenceUnconfirmed, unconfirmed
	}
	if _, lost := r.level(); lost.IsZero() {
		return record.FenceLate, errors.New("it was confirmed, and is not so: it answers after all, or another leads")
	}
	now, err := patroni.Get(ctx, r.Store, r.Path)
	switch {
	case err != nil:
		return record.FenceFailed, err
	case now.Leader != c.cluster.Leader || now.LeaderVersion != c.cluster.LeaderVersion:
		return record.FenceLate, errors.New("the claim is not the one that it was any more")
	case now.Config.Paused || now.Config.StandbyCluster:
		return record.FenceLate, errors.New("the cluster was paused meanwhile, or made a standby cluster")
	}
	revoker, ok := r.Store.(dcs.Revoker)
	if !ok {
		return record.FenceFailed, errors.New("the store ends no claims") // Validate has seen to it
	}
	switch err = revoker.Revoke(ctx, r.Path+"/leader", []byte(c.cluster.Leader), c.cluster.LeaderVersion); {
	case err == nil:
		return record.FenceEnded, nil
	case errors.Is(err, dcs.ErrConflict):
		return record.FenceLate, err
	case errors.Is(err, dcs.ErrUnknown):
		return record.FenceUnknown, err
	}
	return record.FenceFailed, err
}

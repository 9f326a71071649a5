package consul

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/internal/level"
	"github.com/pgconvoy/pgconvoy/dcs/internal/retry"
	"github.com/pgconvoy/pgconvoy/internal/mutant"
)

const (
	// A read without an answer for this long makes the content stale, and another one is sent beside it, up to so many:
	// a connection that died silently is recognised by nothing else, and there may be several in the client's pool.
	patience = time.Second
	maxReads = 4
	// A read that is sent so long after the first refusal, and refused too, is the last: a server that has just become the
	// leader refuses tokens and rights that it has not read from its log yet.
	refusedFor = 5 * time.Second
)

// Watch implements [dcs.Reader]: a consistent read, then blocking queries from its index on.
//
// It reads again at every Reconfirm, and at once when a blocking query fails, answers without a change, or keeps silent
// for longer than it was told to. If the store itself was replaced by an older copy (restored from a snapshot), the
// content becomes what the store now says.
func (s *Store) Watch(ctx context.Context, dir string) iter.Seq2[dcs.Snapshot, error] {
	return level.Watch(ctx, checkDir(dir), func(ctx context.Context, publish func(dcs.Snapshot)) (dcs.Snapshot, error) {
		w := watch{s: s, dir: dir, publish: publish}
		err := w.run(ctx)
		return w.snap, err
	})
}

// watch is the state of one Watch. One question is under way at a time, so that no answer can overtake another.
type watch struct {
	s       *Store
	dir     string
	publish func(dcs.Snapshot) // never blocks

	snap  dcs.Snapshot
	index uint64 // of snap

	refusedSince time.Time // zero: not refused
}

// run follows the store until ctx ends or there is no hope. The error is never nil.
func (w *watch) run(ctx context.Context) error {
	var failed, idle int // in a row: reads that failed; times that following brought nothing and was soon over
	for {
		asked := time.Now()
		c, err := w.read(ctx)
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		if err != nil {
			if w.refused(err, asked) {
				return err
			}
			w.stale(err)
			failed++
			retry.Wait(ctx, retry.Backoff(failed))
			continue
		}
		failed, w.refusedSince = 0, time.Time{}
		w.accept(c)

		if w.follow(ctx) {
			idle = 0
		} else if idle++; idle > 1 {
			retry.Wait(ctx, retry.Backoff(idle-1))
		}
	}
}

// read makes a confirming read. While there is no answer it asks again beside; the first answer counts.
func (w *watch) read(ctx context.Context) (content, error) {
	type result struct {
		content
		err error
	}
	var tasks sync.WaitGroup
	defer tasks.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan result)
	again := time.NewTicker(patience)
	defer again.Stop()
	for n := 1; ; n++ {
		if n <= maxReads {
			tasks.Go(func() {
				bounded, cancel := context.WithTimeout(ctx, w.s.timeout())
				defer cancel()
				c, err := w.s.read(bounded, w.dir)
				select {
				case results <- result{c, err}:
				case <-ctx.Done():
				}
			})
		}
		select {
		case r := <-results:
			return r.content, r.err
		case <-again.C:
			w.stale(fmt.Errorf("consul: read %s: no answer for %v; check the way to the agent, and that the servers have a leader", w.dir, patience))
		case <-ctx.Done():
			return content{}, context.Cause(ctx)
		}
	}
}

// follow takes the changes that blocking queries bring, until one fails or brings none, or another read is due. It
// reports whether that was worth its while: without a change, and long before its time, it could be so again at once.
func (w *watch) follow(ctx context.Context) bool {
	reconfirm := min(cmp.Or(w.s.Reconfirm, defaultReconfirm), maxReconfirm)
	wait := max(time.Millisecond, reconfirm-reconfirm/16) // servers add up to a sixteenth
	began, changed := time.Now(), false
	for {
		c, err := w.block(ctx, wait, reconfirm+patience)
		if err != nil || !w.believable(c) {
			return changed || time.Since(began) > min(wait/2, retry.Max)
		}
		w.accept(c)
		if time.Since(began) > reconfirm {
			return true
		}
		if len(c.entries) > 0 {
			changed = true
		} else {
			retry.Wait(ctx, retry.Min) // an empty directory has the index of the whole store
		}
	}
}

// block asks for a higher index. wait is for the servers; a connection that says nothing for longer than most is dead.
func (w *watch) block(ctx context.Context, wait, most time.Duration) (content, error) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	return w.s.list(ctx, w.dir, w.index, wait)
}

// believable reports whether the answer to a blocking query can be taken as it is. One whose index did not grow may be
// as old as the question, or from a store that was replaced: its index is not to be waited for. And emptiness needs the
// care of a read.
func (w *watch) believable(c content) bool {
	return (c.index > w.index || mutant.Is("law4-consul-asks-anew")) && (len(c.entries) > 0 || w.empty())
}

func (w *watch) empty() bool {
	for range w.snap.All("/") {
		return false
	}
	return true
}

// accept takes the answer to the last question as the content.
func (w *watch) accept(c content) {
	w.snap, w.index = w.snap.Renew(c.at, c.entries), c.index
	w.publish(w.snap)
}

// stale repeats the content with the reason why it is not confirmed.
func (w *watch) stale(why error) {
	w.snap.Stale = why
	w.publish(w.snap)
}

// refused reports whether asking again cannot help, by the error of a read and when it was sent.
func (w *watch) refused(err error, asked time.Time) bool {
	if !hopeless(err) {
		w.refusedSince = time.Time{}
		return false
	}
	if w.refusedSince.IsZero() {
		w.refusedSince = time.Now()
	}
	return asked.Sub(w.refusedSince) >= refusedFor
}

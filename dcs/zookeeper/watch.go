package zookeeper

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/internal/level"
	"github.com/pgconvoy/pgconvoy/dcs/internal/retry"
	"github.com/pgconvoy/pgconvoy/internal/mutant"
)

const (
	// Readings without an answer for this long make the content stale. They go on.
	patience = time.Second
	// A second look after a connection that was had back: see the package's comment.
	secondLook = time.Second
)

// Watch implements [dcs.Reader]: a barrier and a reading of each node, with a one-shot watch armed by the same request;
// what fires is read again. It reads everything again at every Reconfirm, and when the connection was lost: in the same
// session what the servers say is merged by the order of their transactions, in a new one it is built anew before it is
// shown.
func (s *Store) Watch(ctx context.Context, dir string) iter.Seq2[dcs.Snapshot, error] {
	return level.Watch(ctx, s.check("dir", dir), func(ctx context.Context, publish func(dcs.Snapshot)) (dcs.Snapshot, error) {
		w := newWatch(s, dir, publish)
		err := w.run(ctx)
		return w.snap, err
	})
}

// watch is the state of one Watch. One goroutine owns it.
type watch struct {
	s       *Store
	dir     string
	publish func(dcs.Snapshot) // never blocks

	snap    dcs.Snapshot // as published
	tree    *tree
	whole   bool  // the tree has been read once
	session int64 // in which it was read

	up       bool
	seen     int64 // the session when the connection was last looked at
	failures int
	readAt   time.Time // the next reading of everything is due
	twice    bool      // and another one soon after it

	readings
	pass    time.Time // when the present reading of everything began; zero: none
	walking bool      // it has had its sync
	answer  time.Time // when the last answer came, or the first question was put

	tasks sync.WaitGroup
	lookout
}

func newWatch(s *Store, dir string, publish func(dcs.Snapshot)) *watch {
	w := &watch{
		s: s, dir: dir, publish: publish,
		tree:     newTree(dir),
		readings: readings{jobs: make(map[spot]*job), results: make(chan result, maxReads+1)},
	}
	w.lookout = newLookout(&w.tasks)
	return w
}

// run follows the store until ctx ends or there is no hope. The error is never nil.
func (w *watch) run(ctx context.Context) error {
	parent := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer w.tasks.Wait()
	defer cancel()
	w.answer, w.readAt = time.Now(), time.Now()
	w.up, w.seen = w.s.conn.State() == zk.StateHasSession, w.s.conn.SessionID()
	w.restart(ctx)
	defer func() { w.stop() }()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if err := context.Cause(parent); err != nil {
			return err
		}
		if err := w.look(ctx); err != nil {
			return err
		}
		w.due(ctx)
		select {
		case <-ctx.Done():
		case <-tick.C:
		case r := <-w.results:
			if err := w.outcome(ctx, r); err != nil {
				return err
			}
		case <-w.some:
			for _, at := range w.lookout.take() {
				if w.tree.nodes[at.key] != nil {
					w.want(at, false)
				}
			}
		}
	}
}

// look looks at the connection: that it is lost is no reason to wait for a reading to fail.
func (w *watch) look(ctx context.Context) error {
	up, session := w.s.conn.State() == zk.StateHasSession, w.s.conn.SessionID()
	switch {
	case w.s.conn.State() == zk.StateAuthFailed:
		return fmt.Errorf("zookeeper: watch %s: %w", w.dir, zk.ErrAuthFailed)
	case !up && w.s.closed():
		return fmt.Errorf("zookeeper: watch %s: %w", w.dir, errClosed)
	case w.up && (!up || session != w.seen):
		w.restart(ctx)
		why := "the connection was lost"
		if session != w.seen {
			why = "the session has expired"
		}
		if w.snap.Known() {
			w.stale(fmt.Errorf("zookeeper: watch %s: %s (%s)", w.dir, why, w.s.connection()))
		}
	}
	if up && (!w.up || session != w.seen) {
		w.readAt, w.twice = time.Now().Add(settle), true
	}
	w.up, w.seen = up, session
	return nil
}

// due does what is due.
func (w *watch) due(ctx context.Context) {
	now := time.Now()
	if w.up && w.pass.IsZero() && !w.readAt.After(now) {
		w.begin(ctx, now)
	}
	w.start(func(at spot) { w.read(ctx, at) })
	if w.running == 0 && w.snap.Known() {
		w.answer = now
	}
	if silence := now.Sub(w.answer); silence >= patience && w.snap.Stale == nil {
		w.stale(fmt.Errorf("zookeeper: watch %s: no answer for %v (%s)", w.dir, patience, w.s.connection()))
		if w.pass.IsZero() {
			w.readAt = now
		}
	}
}

// begin begins a reading of everything.
func (w *watch) begin(life context.Context, now time.Time) {
	w.pass = now
	w.running++
	if w.running == 1 {
		w.answer = now
	}
	round, ctx := w.round, w.ctx
	w.tasks.Go(func() {
		session, err := w.s.barrier(ctx)
		w.answered(life, result{round: round, session: session, synced: true, err: err})
	})
}

// read reads a spot in a goroutine.
func (w *watch) read(life context.Context, at spot) {
	if w.running == 1 {
		w.answer = time.Now()
	}
	round, ctx, session := w.round, w.ctx, w.session
	w.tasks.Go(func() {
		a, err := w.s.readAndArm(ctx, at, at.key == w.dir)
		if err == nil && w.s.conn.SessionID() != session {
			err = errNewSession // of a server that may be behind what the last sync has seen
		}
		w.answered(life, result{round: round, at: at, armed: a, err: err})
	})
}

func (w *watch) answered(life context.Context, r result) {
	select {
	case w.results <- r:
	case <-life.Done():
	}
}

// outcome takes that of a sync or of a reading.
func (w *watch) outcome(ctx context.Context, r result) error {
	w.running--
	if r.round != w.round {
		return nil
	}
	w.answer = time.Now()
	switch {
	case r.err == nil:
	case ctx.Err() != nil:
		return nil // the loop sees it
	case hopeless(r.err):
		return fmt.Errorf("zookeeper: watch %s: %w", cmp.Or(r.at.key, w.dir), r.err)
	default:
		w.failures++
		w.restart(ctx)
		w.readAt = time.Now().Add(retry.Backoff(w.failures))
		w.stale(fmt.Errorf("zookeeper: watch %s: %w", cmp.Or(r.at.key, w.dir), r.err))
		return nil
	}
	before := w.tree.snap
	if r.synced {
		if r.session != w.session {
			w.session, w.tree, w.whole = r.session, newTree(w.dir), false
		}
		w.open, w.walking = true, true
		w.want(spot{w.dir, names}, true)
	} else {
		w.merge(ctx, r)
	}
	switch {
	case w.walking && w.marked == 0:
		w.confirm()
	case w.whole && !same(before, w.tree.snap):
		at, stale := w.snap.At, w.snap.Stale
		w.snap = w.tree.snap
		w.snap.At, w.snap.Stale = at, stale
		w.publish(w.snap)
	}
	return nil
}

// confirm publishes the content after a reading of everything.
func (w *watch) confirm() {
	if w.whole {
		w.tree.snap.At = w.pass
	} else { // share with the last content what is the same
		w.tree.snap = w.snap.Renew(w.pass, slices.Collect(w.tree.snap.All("/")))
		w.whole = true
	}
	w.tree.snap.Stale = nil
	w.snap = w.tree.snap
	w.failures = 0
	w.readAt = time.Now().Add(retry.Spread(cmp.Or(w.s.Reconfirm, defaultReconfirm)))
	if mutant.Is("law4-zookeeper-reads-again") {
		w.readAt = time.Now().AddDate(1, 0, 0)
	}
	if w.twice {
		w.twice, w.readAt = false, time.Now().Add(secondLook)
	}
	w.pass, w.walking = time.Time{}, false
	w.publish(w.snap)
}

// restart gives up what is being read, and begins to count anew.
func (w *watch) restart(ctx context.Context) {
	if w.stop != nil {
		w.stop()
	}
	w.ctx, w.stop = context.WithCancel(ctx)
	w.round++
	clear(w.jobs)
	w.queue, w.marked, w.open = nil, 0, false
	w.pass, w.walking = time.Time{}, false
}

// stale repeats the content with the reason why it is not confirmed.
func (w *watch) stale(why error) {
	w.snap.Stale = why
	w.publish(w.snap)
}

// same reports whether two versions of a tree have the same keys, at the cost of what changed.
func same(a, b dcs.Snapshot) bool {
	for range a.Changed(b) {
		return false
	}
	return true
}

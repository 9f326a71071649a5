package etcd

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/connectivity"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/internal/level"
	"github.com/pgconvoy/pgconvoy/dcs/internal/retry"
)

const (
	// A read without an answer for this long makes the content stale. The read goes on.
	patience = time.Second
	// While there is no answer, connecting is tried again at this interval. (gRPC's own grows to two minutes.)
	redialEvery = 200 * time.Millisecond
	// Streams that begin behind what was written meanwhile are replaced this often; in a busy store all may be.
	maxRestarts = 3
)

// Watch implements [dcs.Reader]: a linearizable read, then the events that follow its revision.
//
// It compares its content with the store's at every Reconfirm, after a compaction, and when the stream ends; it reads
// everything again, at once, when the connection was lost. It opens another stream when the present one has not come as
// far as a read did within Timeout. If the store itself was replaced by another one or by an older copy (restored from a
// backup), the content becomes what the store now says.
func (s *Store) Watch(ctx context.Context, dir string) iter.Seq2[dcs.Snapshot, error] {
	return level.Watch(ctx, dcs.CheckKey("dir", dir), func(ctx context.Context, publish func(dcs.Snapshot)) (dcs.Snapshot, error) {
		w := watch{s: s, dir: dir, publish: publish}
		err := w.run(ctx)
		return w.snap, err
	})
}

// watch is the state of one Watch. One goroutine owns it.
type watch struct {
	s       *Store
	dir     string
	publish func(dcs.Snapshot) // never blocks
	open    func(revision int64) *stream

	snap  dcs.Snapshot
	store uint64 // the etcd cluster that snap is from
	base  int64  // revision of the last read that snap is made from
	seen  int64  // highest revision in snap
	large bool   // reading it takes a while

	stream         *stream // nil: none
	streamFailures int
	streamSince    time.Time // when the server confirmed it; zero: not yet
	restarts       int       // streams in a row that began behind

	reading      bool
	readSince    time.Time
	readFailures int
	readAll      bool              // the next read is of everything: who answers may be another
	readSeen     int64             // seen when the read began
	during       []*clientv3.Event // what came while it was under way
	answered     chan struct{}     // a part of it has come; room for one
	reads        chan result       // its outcome; room for one

	// Moments at which something is due; zero: never.
	readAt     time.Time // the next read
	waitAt     time.Time // the next attempt to connect, while the present read has no answer
	progressAt time.Time // the stream should have come as far as base

	tasks sync.WaitGroup
}

type result struct {
	content
	all bool // it was to be of everything
	err error
}

// run follows the store until ctx ends or there is no hope. The error is never nil.
func (w *watch) run(ctx context.Context) error {
	parent := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		w.closeStream()
		w.tasks.Wait()
	}()
	defer cancel()
	w.reads, w.answered, w.readAll = make(chan result, 1), make(chan struct{}, 1), true
	w.open = func(revision int64) *stream { return w.s.open(ctx, dcs.Prefix(w.dir), revision) }
	lost := w.connectionLost(ctx)
	timer := time.NewTimer(0)
	defer timer.Stop()
	w.readAt = time.Now()
	for {
		if err := context.Cause(parent); err != nil {
			return err
		}
		w.due(ctx, time.Now())
		next := w.readAt
		if w.reading { // the next one is not due before the present one has come back
			next = w.waitAt
		}
		timer.Reset(time.Until(earliest(next, w.progressAt)))
		var opened chan clientv3.WatchChan
		var events clientv3.WatchChan
		if w.stream != nil {
			if events = w.stream.events; events == nil {
				opened = w.stream.opened
			}
		}
		var err error
		select {
		case <-ctx.Done():
		case <-w.s.client.Ctx().Done():
			return fmt.Errorf("etcd: watch %s: the client was closed", w.dir)
		case resp, ok := <-events:
			err = w.received(resp, ok)
		case r := <-w.reads:
			err = w.read(ctx, r)
		case w.stream.events = <-opened:
		case <-w.answered:
			w.readSince = time.Now()
			w.waitAt = w.readSince.Add(redialEvery)
		case <-lost:
			w.readAt, w.readAll = time.Now(), true
		case <-timer.C:
		}
		if err != nil {
			return err
		}
	}
}

// due does what is due.
func (w *watch) due(ctx context.Context, now time.Time) {
	if passed(w.progressAt, now) {
		w.streamFailed()
	}
	if passed(w.readAt, now) && !w.reading {
		w.startRead(ctx, now)
	}
	if w.reading && passed(w.waitAt, now) {
		if w.snap.Stale == nil && now.Sub(w.readSince) >= patience {
			w.stale(fmt.Errorf("etcd: read %s: no answer for %v%s", w.dir, patience, w.s.connection()))
		}
		w.s.redial()
		w.waitAt = now.Add(redialEvery)
	}
}

func (w *watch) startRead(ctx context.Context, now time.Time) {
	w.reading, w.readSeen, w.during = true, w.seen, nil
	w.readAt, w.readSince, w.waitAt = time.Time{}, now, now.Add(redialEvery)
	st, all, have := w.stream, w.readAll, known{w.store, w.seen, w.snap}
	w.readAll = false
	answered := func() {
		select {
		case w.answered <- struct{}{}:
		default:
		}
	}
	w.tasks.Go(func() {
		// Require a leader: without one the answer is an error and not silence.
		ctx := clientv3.WithRequireLeader(ctx)
		r := result{all: all}
		if all {
			r.content, r.err = w.s.read(ctx, w.dir, answered)
		} else {
			r.content, r.err = w.s.confirm(ctx, w.dir, have, answered)
		}
		w.reads <- r
		if r.err == nil && st != nil {
			ctx, cancel := w.s.bound(ctx)
			defer cancel()
			st.progress(ctx) // must be answered with the read's revision or a later one
		}
	})
}

// stale repeats the content with the reason why it is not confirmed.
func (w *watch) stale(why error) {
	w.snap.Stale = why
	w.publish(w.snap)
}

// streamFailed drops the stream and reads again: at once if it had served for a while.
func (w *watch) streamFailed() {
	if !w.streamSince.IsZero() && time.Since(w.streamSince) > retry.Max {
		w.streamFailures = 0
	}
	w.closeStream()
	w.readAt = time.Now()
	if w.streamFailures++; w.streamFailures > 1 {
		w.readAt = w.readAt.Add(retry.Backoff(w.streamFailures))
	}
}

func (w *watch) closeStream() {
	if w.stream != nil {
		w.stream.close()
	}
	w.stream, w.streamSince, w.progressAt = nil, time.Time{}, time.Time{}
}

// connectionLost signals when the client has lost its connection: silence may have another reason, this one is known
// at once.
func (w *watch) connectionLost(ctx context.Context) <-chan struct{} {
	lost := make(chan struct{}, 1)
	conn := w.s.client.ActiveConnection()
	w.tasks.Go(func() {
		for state := conn.GetState(); conn.WaitForStateChange(ctx, state); {
			if state == connectivity.Ready { // it may be back already
				select {
				case lost <- struct{}{}:
				default:
				}
			}
			state = conn.GetState()
		}
	})
	return lost
}

func (w *watch) timeout() time.Duration { return cmp.Or(w.s.Timeout, defaultTimeout) }

package etcd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pgconvoy/pgconvoy/dcs/internal/retry"
	"github.com/pgconvoy/pgconvoy/internal/mutant"
)

// read takes the outcome of a read.
func (w *watch) read(ctx context.Context, r result) error {
	during := w.during
	w.reading, w.during, w.waitAt = false, nil, time.Time{}
	if r.err != nil {
		if ctx.Err() != nil {
			return nil // the loop sees it
		}
		if hopeless(r.err) {
			return r.err
		}
		w.readFailures++
		w.readAll = w.readAll || r.all
		w.readAt = time.Now().Add(retry.Backoff(w.readFailures))
		w.stale(r.err)
		w.s.redial()
		return nil
	}
	w.readFailures = 0
	w.readAt = time.Now()
	if !w.readAll { // as it is again if the connection was lost meanwhile
		w.readAt = w.readAt.Add(retry.Spread(cmp.Or(w.s.Reconfirm, defaultReconfirm)))
	}
	if mutant.Is("law4-etcd-reads-again") {
		w.readAt = time.Time{}
	}
	// A linearizable read cannot be older than an event.
	replaced := r.revision < w.readSeen || r.store != w.store
	before := w.snap
	confirmed := later(before.At, r.at)
	w.store, w.large, w.base, w.seen = r.store, r.large, r.revision, r.revision
	if w.snap = r.snap; !r.snap.Known() {
		w.snap = before.Renew(r.at, r.entries)
	}
	if replaced {
		// A stream that waits for the next revision of the lost history would keep silent until the new one gets there.
		w.closeStream()
	} else {
		w.apply(during)
	}
	w.snap.At = confirmed
	if w.stream == nil {
		w.stream = w.open(w.seen + 1)
	}
	w.progressAt = time.Now().Add(w.timeout())
	w.publish(w.snap)
	return nil
}

// received takes one response of the stream; ok is false when its channel is closed.
func (w *watch) received(resp clientv3.WatchResponse, ok bool) error {
	if err := resp.Err(); !ok || err != nil {
		if hopeless(err) && !errors.Is(err, rpctypes.ErrInvalidAuthToken) {
			return fmt.Errorf("etcd: watch %s: %w", w.dir, err)
		}
		w.streamFailed()
		return nil
	}
	if id := resp.Header.GetClusterId(); id != 0 && id != w.store {
		w.readAll = true // the client went on where another store answers
		w.streamFailed()
		return nil
	}
	if resp.Created {
		w.streamSince = time.Now()
		if behind := resp.Header.GetRevision() > w.seen; behind && !w.large && w.restarts < maxRestarts {
			// Written between the read and this: the server catches such a stream up ten times a second only, and
			// keeps all that follows back until then. Another read and stream are quicker, unless there is much to read.
			w.restarts++
			w.closeStream()
			w.readAt = time.Now()
			return nil
		}
		w.restarts = 0
	}
	if resp.Created || resp.Header.GetRevision() >= w.base {
		w.progressAt = time.Time{}
	}
	if w.reading {
		w.during = append(w.during, resp.Events...)
	}
	if w.apply(resp.Events) { // At stays: events may have been on their way for long
		w.publish(w.snap)
	}
	return nil
}

// apply adds events to the content, unless they are in it already. At and Stale stay.
func (w *watch) apply(events []*clientv3.Event) (changed bool) {
	for _, e := range events {
		if rev := e.Kv.ModRevision; rev <= w.base || rev < w.seen {
			continue
		}
		w.seen, changed = e.Kv.ModRevision, true
		if e.Type == mvccpb.Event_DELETE {
			w.snap = w.snap.Without(string(e.Kv.Key))
		} else {
			w.snap = w.snap.With(entry(e.Kv))
		}
	}
	return changed
}

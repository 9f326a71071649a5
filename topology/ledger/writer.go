package ledger

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// Waits before reconnecting: none after the first loss, as a pool would do,
// then growing, so that a dead server is not hammered.
const (
	firstBackoff = 5 * time.Millisecond
	maxBackoff   = 100 * time.Millisecond
)

// writer is one client. Its goroutine alone touches everything but live.
type writer struct {
	id      int
	run     int64
	cfg     *pgx.ConnConfig
	insert  string // SQL, or the name of the prepared statement
	sql     string
	load    Load
	base    time.Time
	session *session // nil: reconnect first
	losses  int      // connections lost, or not made, since the last acknowledgement
	track   track
	live    live
}

// live is what Ledger.Now reads while the writer runs.
type live struct {
	sent, acknowledged, failed, unknown atomic.Int64
	lastAck                             atomic.Int64 // ns since the base
}

// connect makes the writer's connection and prepares its statement there, so
// that a transaction afterwards is one message and one answer.
func (w *writer) connect(ctx context.Context) error {
	s, err := dial(ctx, w.cfg)
	if err != nil {
		return err
	}
	w.insert = w.sql
	if w.cfg.DefaultQueryExecMode == pgx.QueryExecModeCacheStatement {
		if _, err := s.conn.Prepare(ctx, insertName, w.sql); err != nil {
			s.close(ctx)
			return err
		}
		w.insert = insertName
	}
	w.session = s
	return nil
}

// drive starts one transaction per tick until stop is closed. A late writer
// catches up: it drops no tick. ctx ends it at once.
func (w *writer) drive(ctx context.Context, stop <-chan struct{}) {
	defer w.hangUp(ctx)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		due := w.track.offset + time.Duration(len(w.track.attempts))*w.load.Every
		wait := max(due-time.Since(w.base), w.backoff())
		timer.Reset(max(wait, 0))
		select {
		case <-stop:
			return
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		select {
		case <-stop: // both were ready
			return
		default:
		}
		w.attempt(ctx)
	}
}

func (w *writer) backoff() time.Duration {
	if w.session != nil || w.losses < 2 {
		return 0
	}
	return min(firstBackoff<<min(w.losses-2, 10), maxBackoff)
}

// attempt runs the next transaction, once, and records it.
func (w *writer) attempt(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, w.load.Timeout)
	defer cancel()
	w.live.sent.Add(1)
	a := attempt{start: time.Since(w.base)}
	ph, err := w.transact(ctx, len(w.track.attempts))
	a.end = time.Since(w.base)

	if s := w.session; s != nil {
		if err == nil && s.local {
			err = errNotReplicated
		}
		s.local = false
		if s.conn.IsClosed() {
			w.hangUp(ctx)
		}
	}
	var kind string
	a.outcome, kind = classify(ph, err)
	switch a.outcome {
	case acknowledged:
		w.losses = 0
		w.live.lastAck.Store(int64(a.end))
		w.live.acknowledged.Add(1)
	case failed, unknown:
		a.kind = w.track.kind(kind, err)
		if w.session == nil {
			w.losses++
		}
		if a.outcome == unknown {
			w.live.unknown.Add(1)
		}
		w.live.failed.Add(1)
	}
	w.track.attempts = append(w.track.attempts, a)
}

// transact writes the row of seq, and says how far it came.
func (w *writer) transact(ctx context.Context, seq int) (phase, error) {
	if w.session == nil {
		if err := w.connect(ctx); err != nil {
			return connecting, err
		}
	}
	c := w.session.conn
	if !w.load.Explicit {
		_, err := c.Exec(ctx, w.insert, w.run, int32(w.id), int64(seq))
		return committing, err
	}
	if _, err := c.Exec(ctx, "begin"); err != nil {
		return working, err
	}
	if _, err := c.Exec(ctx, w.insert, w.run, int32(w.id), int64(seq)); err != nil {
		if !c.IsClosed() {
			_, _ = c.Exec(ctx, "rollback") // if this fails too the connection is closed, which does the same
		}
		return working, err
	}
	tag, err := c.Exec(ctx, "commit")
	if err == nil && tag.String() == "ROLLBACK" {
		err = errRolledBack
	}
	return committing, err
}

func (w *writer) hangUp(ctx context.Context) {
	if w.session != nil {
		w.session.close(ctx)
		w.session = nil
	}
}

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

// transaction runs the transaction seq of a client on c, where statement is
// its SQL, or the name under which that is prepared. It tells how far it came,
// and enters in the record what the answer showed.
type transaction func(ctx context.Context, c *pgx.Conn, statement string, seq int, rec *record) (phase, error)

// client is one writer or reader. Its goroutine alone touches everything but
// live.
type client struct {
	cfg       *pgx.ConnConfig
	sql       string
	transact  transaction
	timeout   time.Duration
	base      time.Time
	session   *session // nil: reconnect first
	statement string   // what to send in this session: sql, or its name
	losses    int      // connections lost, or not made, since the last answer
	track     track
	live      live
}

// live is what Ledger.Now reads while the client runs.
type live struct {
	sent, acknowledged, failed, unknown atomic.Int64
	lastAck                             atomic.Int64 // ns since the base
}

// connect makes the client's connection and prepares its statement there, so
// that a transaction afterwards is one message and one answer.
func (c *client) connect(ctx context.Context) error {
	s, err := dial(ctx, c.cfg)
	if err != nil {
		return err
	}
	c.statement = c.sql
	if c.cfg.DefaultQueryExecMode == pgx.QueryExecModeCacheStatement {
		if _, err := s.conn.Prepare(ctx, statementName, c.sql); err != nil {
			s.close(ctx)
			return err
		}
		c.statement = statementName
	}
	c.session = s
	return nil
}

// drive starts one transaction per tick until stop is closed. A late client
// catches up: it drops no tick. ctx ends it at once.
func (c *client) drive(ctx context.Context, stop <-chan struct{}) {
	defer c.hangUp(ctx)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		due := c.track.due(len(c.track.attempts))
		wait := max(due-time.Since(c.base), c.backoff())
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
		c.attempt(ctx)
	}
}

func (c *client) backoff() time.Duration {
	if c.session != nil || c.losses < 2 {
		return 0
	}
	return min(firstBackoff<<min(c.losses-2, 10), maxBackoff)
}

// attempt runs the next transaction, once, and records it.
func (c *client) attempt(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	c.live.sent.Add(1)
	rec := record{attempt: attempt{start: time.Since(c.base)}}
	ph, err := c.try(ctx, len(c.track.attempts), &rec)
	rec.end = time.Since(c.base)

	if s := c.session; s != nil {
		if err == nil && s.local {
			err = errNotReplicated
		}
		s.local = false
		if s.conn.IsClosed() {
			c.hangUp(ctx)
		}
	}
	var kind string
	rec.outcome, kind = classify(ph, err)
	switch rec.outcome {
	case acknowledged:
		c.losses = 0
		c.live.lastAck.Store(int64(rec.end))
		c.live.acknowledged.Add(1)
	case failed, unknown:
		rec.timeline, rec.view = 0, view{} // shown, and then not confirmed
		rec.kind = c.track.kind(kind, err)
		if c.session == nil {
			c.losses++
		}
		if rec.outcome == unknown {
			c.live.unknown.Add(1)
		}
		c.live.failed.Add(1)
	}
	c.track.add(rec)
}

// try connects where that is needed, and runs the transaction.
func (c *client) try(ctx context.Context, seq int, rec *record) (phase, error) {
	if c.session == nil {
		if err := c.connect(ctx); err != nil {
			return connecting, err
		}
	}
	return c.transact(ctx, c.session.conn, c.statement, seq, rec)
}

func (c *client) hangUp(ctx context.Context) {
	if c.session != nil {
		c.session.close(ctx)
		c.session = nil
	}
}

package ledger

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// view is what the answer to a read showed.
type view struct {
	newest  int32 // the newest sequence number of the writer that it asked for, -1: none
	standby bool  // the server was, or may have been, in recovery
}

// reader makes the client that reads, through cfg, the newest row of one
// writer after the other.
func (l *Ledger) reader(cfg *pgx.ConnConfig, id int) *client {
	transact := func(ctx context.Context, c *pgx.Conn, statement string, seq int, rec *record) (phase, error) {
		var newest int64
		var timeline int32
		err := c.QueryRow(ctx, statement, l.run, int32(watched(id, seq, l.load.Writers))).
			Scan(&rec.standby, &newest, &timeline)
		rec.newest, rec.timeline = int32(min(newest, math.MaxInt32)), uint32(timeline)
		return working, err // a read has no effect: whatever ends it early, it failed
	}
	return &client{
		cfg: cfg, sql: readSQL(l.load.Table), transact: transact,
		timeout: l.load.Timeout, base: l.base, track: track{every: l.load.ReadEvery, reads: true},
	}
}

// watched is the writer whose newest row a reader asks for.
func watched(reader, seq, writers int) int { return (reader + seq) % writers }

// rehearse connects a reader and reads once. A replica may need a moment until
// it has a table that was just created on the primary.
func (c *client) rehearse(ctx context.Context) error {
	for {
		_, err := c.try(ctx, 0, &record{})
		if err == nil {
			return nil
		}
		c.hangUp(ctx)
		const undefinedTable = "42P01"
		if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.Code != undefinedTable {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

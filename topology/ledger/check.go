package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// check reads the rows of a run back and marks the history with them.
func check(ctx context.Context, cfg *pgx.ConnConfig, run int64, table string, h *history) error {
	err := persist(ctx, func() error {
		return withSession(ctx, cfg, func(c *pgx.Conn) error {
			if err := settle(ctx, c, table); err != nil {
				return err
			}
			if err := readBack(ctx, c, run, table, h); err != nil {
				return err
			}
			if h.measured {
				_, err := c.Exec(ctx, fmt.Sprintf("delete from %s where run = %d", quoted(table, probeSuffix), run))
				return err
			}
			return nil
		})
	})
	if err != nil {
		h.forget()
	}
	h.checked = err == nil
	return err
}

// settle waits until every transaction that is writing to the table at this
// moment has ended. A client that gave up may have left one behind on the
// server (waiting for a synchronous standby, say) which would commit just
// after the rows were read. Later ones are none of this run.
func settle(ctx context.Context, c *pgx.Conn, table string) error {
	var open []string
	err := c.QueryRow(ctx, `
		select coalesce(array_agg(virtualtransaction), '{}') from pg_locks
		where locktype = 'relation' and relation = to_regclass($1) and mode = 'RowExclusiveLock'
		and database = (select oid from pg_database where datname = current_database())`,
		pgx.QueryExecModeExec, quoted(table, "")).Scan(&open)
	for err == nil && len(open) > 0 {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d transactions on %s are still open on the server: %w", len(open), table, context.Cause(ctx))
		case <-time.After(10 * time.Millisecond):
		}
		err = c.QueryRow(ctx, "select coalesce(array_agg(distinct virtualtransaction), '{}') from pg_locks where virtualtransaction = any($1)",
			pgx.QueryExecModeExec, open).Scan(&open)
	}
	return err
}

// readBack enters all rows. It may be repeated.
func readBack(ctx context.Context, c *pgx.Conn, run int64, table string, h *history) error {
	h.forget()
	rows, err := c.Query(ctx, "select writer, seq, timeline from "+quoted(table, "")+" where run = $1", pgx.QueryExecModeExec, run)
	if err != nil {
		return err
	}
	var (
		writer, timeline int32
		seq              int64
	)
	_, err = pgx.ForEachRow(rows, []any{&writer, &seq, &timeline}, func() error {
		h.found(int(writer), seq, uint32(timeline))
		return nil
	})
	return err
}

// forget undoes found.
func (h *history) forget() {
	h.strays = 0
	for _, t := range h.writers {
		for i := range t.attempts {
			a := &t.attempts[i]
			a.present = false
			if a.outcome != acknowledged {
				a.timeline = 0
			}
		}
	}
}

// found enters one row: it belongs to a transaction, once, or to none. A row
// on another timeline than the one that was acknowledged is not the
// acknowledged row: somebody sent it again.
func (h *history) found(writer int, seq int64, timeline uint32) {
	if writer < 0 || writer >= len(h.writers) || seq < 0 || seq >= int64(len(h.writers[writer].attempts)) {
		h.strays++
		return
	}
	a := &h.writers[writer].attempts[seq]
	if a.present || a.outcome == acknowledged && a.timeline != timeline {
		h.strays++
		return
	}
	a.present, a.timeline = true, timeline
}

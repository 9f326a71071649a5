package ledger

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// writer makes the client that writes the rows (run, id, seq).
func (l *Ledger) writer(id int) *client {
	run, explicit := l.run, l.load.Explicit
	transact := func(ctx context.Context, c *pgx.Conn, statement string, seq int, rec *record) (phase, error) {
		insert := func() error {
			var timeline int32
			err := c.QueryRow(ctx, statement, run, int32(id), int64(seq)).Scan(&timeline)
			rec.timeline = uint32(timeline)
			return err
		}
		if explicit {
			return explicitly(ctx, c, insert)
		}
		return committing, insert()
	}
	return &client{
		cfg: l.cfg, sql: insertSQL(l.load.Table), transact: transact,
		timeout: l.load.Timeout, base: l.base, track: track{every: l.load.Every},
	}
}

// explicitly puts insert between a BEGIN and a COMMIT of their own.
func explicitly(ctx context.Context, c *pgx.Conn, insert func() error) (phase, error) {
	if _, err := c.Exec(ctx, "begin"); err != nil {
		return working, err
	}
	if err := insert(); err != nil {
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

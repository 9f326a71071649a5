package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// The table has no unique index on purpose: should anything on the way send a
// transaction twice, both rows are there and one of them is counted as surplus.
const (
	tableColumns = "(run bigint not null, writer integer not null, seq bigint not null)"
	probeColumns = "(run bigint, node integer, n bigint not null, primary key (run, node)) with (fillfactor = 50)"
)

func insertSQL(table string) string {
	return "insert into " + quoted(table, "") + " (run, writer, seq) values ($1, $2, $3)"
}

// createTables makes what is missing. It asks first: creating needs a right
// that a user of existing tables may not have.
func createTables(ctx context.Context, cfg *pgx.ConnConfig, table string, probe bool) error {
	return withSession(ctx, cfg, func(c *pgx.Conn) error {
		if err := create(ctx, c, quoted(table, ""), tableColumns); err != nil {
			return err
		}
		if !probe {
			return nil
		}
		return create(ctx, c, quoted(table, probeSuffix), probeColumns)
	})
}

func create(ctx context.Context, c *pgx.Conn, name, columns string) error {
	const tries = 10
	for i := 1; ; i++ {
		var exists bool
		if err := c.QueryRow(ctx, "select to_regclass($1) is not null", pgx.QueryExecModeExec, name).Scan(&exists); err != nil {
			return err
		}
		if exists {
			return nil
		}
		_, err := c.Exec(ctx, "create table if not exists "+name+" "+columns)
		// Ledgers that start together may collide in spite of "if not exists":
		// on the table, its type, or their rows in the catalogue.
		e, ok := errors.AsType[*pgconn.PgError](err)
		if !ok || i == tries || !slices.Contains([]string{"42P07", "42710", "23505"}, e.Code) {
			return err
		}
	}
}

// withSession runs fn on a connection of its own.
func withSession(ctx context.Context, cfg *pgx.ConnConfig, fn func(*pgx.Conn) error) error {
	s, err := dial(ctx, cfg)
	if err != nil {
		return err
	}
	defer s.close(ctx)
	return fn(s.conn)
}

// persist repeats fn until it succeeds, its error is final, or ctx ends: at
// the end of a run the server may be on its way back.
func persist(ctx context.Context, fn func() error) error {
	for {
		err := fn()
		if err == nil || !passing(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (last: %s)", context.Cause(ctx), oneLine(err))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// passing tells whether waiting may help: everything but a clear answer of the
// server about the statement, the user or the database.
func passing(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || len(e.Code) != 5 {
		return true
	}
	switch e.Code[:2] {
	case "08", "40", "53", "57", "58", "XX":
		return true
	case "25": // read-only: the route has not moved yet
		return true
	}
	return false
}

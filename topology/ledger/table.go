package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// The table has no unique index on purpose: should anything on the way send a
// transaction twice, both rows are there and one of them is counted as surplus.
const (
	tableColumns = "(run bigint not null, writer integer not null, timeline integer not null, seq bigint not null)"
	probeColumns = "(run bigint, node integer, n bigint not null, primary key (run, node)) with (fillfactor = 50)"
	readColumns  = "(run, writer, seq)"
)

// readSuffix names the index of the readers.
const readSuffix = "_reads"

// timelineSQL is the timeline on which this server writes. Every user may ask
// for it; in recovery it is an error. The first 8 characters of a WAL file's
// name are the timeline in hexadecimal. The volatile argument matters:
// pg_walfile_name passes for immutable, so with a constant it would be
// evaluated once for all executions of a prepared statement.
const timelineSQL = "('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::integer"

// insertSQL writes one row with the timeline on which it was written, by the
// server's own word, and shows it to the client.
func insertSQL(table string) string {
	return "insert into " + quoted(table, "") + " (run, writer, seq, timeline) values ($1, $2, $3, " + timelineSQL + ") returning timeline"
}

// readSQL asks for the newest row of a writer: whether the server is a standby,
// the row's number (-1: none), and the timeline: a primary's own, or that of
// the row, which is all that a standby tells every user.
//
// A transaction that began in recovery stays read-only, and it begins before
// its snapshot is taken. That the server is out of recovery a moment later
// would not tell that it was so in the snapshot.
func readSQL(table string) string {
	return `select s.standby, coalesce(r.seq, -1), coalesce(case when s.standby then r.timeline else ` + timelineSQL + ` end, 0)
		from (select pg_is_in_recovery() or current_setting('transaction_read_only')::boolean as standby offset 0) s
		left join lateral (select seq, timeline from ` + quoted(table, "") + `
			where run = $1 and writer = $2 order by seq desc limit 1) r on true`
}

// createTables makes what is missing. It asks first: creating needs a right
// that a user of existing tables may not have.
func createTables(ctx context.Context, cfg *pgx.ConnConfig, load Load, probe bool) error {
	table := quoted(load.Table, "")
	return withSession(ctx, cfg, func(c *pgx.Conn) error {
		if err := create(ctx, c, table, "create table if not exists "+table+" "+tableColumns); err != nil {
			return err
		}
		if err := checkColumns(ctx, c, table); err != nil {
			return err
		}
		if load.Readers > 0 {
			index := quoted(load.Table, readSuffix)
			name := index[strings.LastIndex(index, `."`)+1:] // an index is made where its table is
			err := create(ctx, c, index, "create index if not exists "+name+" on "+table+" "+readColumns)
			if err != nil {
				return fmt.Errorf("the readers' index %s: %w", index, err)
			}
		}
		if !probe {
			return nil
		}
		probes := quoted(load.Table, probeSuffix)
		return create(ctx, c, probes, "create table if not exists "+probes+" "+probeColumns)
	})
}

func create(ctx context.Context, c *pgx.Conn, name, sql string) error {
	const tries = 10
	for i := 1; ; i++ {
		var exists bool
		if err := c.QueryRow(ctx, "select to_regclass($1) is not null", pgx.QueryExecModeExec, name).Scan(&exists); err != nil {
			return err
		}
		if exists {
			return nil
		}
		_, err := c.Exec(ctx, sql)
		// Ledgers that start together may collide in spite of "if not exists":
		// on the table, its type, or their rows in the catalogue.
		e, ok := errors.AsType[*pgconn.PgError](err)
		if !ok || i == tries || !slices.Contains([]string{"42P07", "42710", "23505"}, e.Code) {
			return err
		}
	}
}

// checkColumns refuses a table that was not made for this: its rows could not
// be told from those of a run.
func checkColumns(ctx context.Context, c *pgx.Conn, table string) error {
	var missing []string
	err := c.QueryRow(ctx, `
		select coalesce(array_agg(name), '{}') from unnest('{run,writer,timeline,seq}'::text[]) name
		where not exists (select from pg_attribute where attrelid = to_regclass($1) and attname = name and not attisdropped)`,
		pgx.QueryExecModeExec, table).Scan(&missing)
	if err == nil && len(missing) > 0 {
		return fmt.Errorf("the table exists and has no column %s: it was made by something else, or by an older version; "+
			"drop it, or choose another Load.Table", strings.Join(missing, ", "))
	}
	return err
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

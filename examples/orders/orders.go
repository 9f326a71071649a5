// Package orders is a small application for a database that may fail over: it places orders through a connection pool.
//
// When a connection breaks while a COMMIT is under way, nobody can tell whether it was carried out. To send the
// transaction again may place the order twice, and not to send it may not place it at all. So the customer names the
// order by a key, and a transaction that finds the key takes nothing from the stock: it can be sent again and again.
//
// The tests run this application on a real cluster: over a planned switchover, over a crash of the primary, and over a
// COMMIT whose answer is lost. The last one is also run without keys, and shows the order that is placed twice.
package orders

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const schema = `
CREATE TABLE stock (item text PRIMARY KEY, pieces int NOT NULL CHECK (pieces >= 0));
CREATE TABLE orders (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	key text UNIQUE,
	item text NOT NULL REFERENCES stock,
	commits int NOT NULL DEFAULT 1
)`

// Shop places orders.
type Shop struct {
	Pool  *pgxpool.Pool
	Retry func(err error) // is told of each attempt that failed and is made again; nil: nobody is
}

// Place orders one piece of an item. There is one order for each key, however often this is called with it: after an
// error, call it again, at any time and from any process.
func (s *Shop) Place(ctx context.Context, key, item string) error {
	return s.retry(ctx, func(ctx context.Context) error {
		return pgx.BeginFunc(ctx, s.Pool, func(tx pgx.Tx) error {
			// An order that is there is written again, and not only seen: the answer to a COMMIT that has something to
			// write waits until a standby has all up to there. What is only seen may be lost with the primary.
			var commits int
			err := tx.QueryRow(ctx, `INSERT INTO orders (key, item) VALUES ($1, $2)
				ON CONFLICT (key) DO UPDATE SET commits = orders.commits + 1 RETURNING commits`, key, item).Scan(&commits)
			if err != nil || commits > 1 {
				return err
			}
			_, err = tx.Exec(ctx, "UPDATE stock SET pieces = pieces - 1 WHERE item = $1", item)
			return err
		})
	})
}

// patience bounds one attempt. It exceeds the time for which a switchover makes clients wait, or they would fail by it.
const patience = 15 * time.Second

// retry makes an attempt again until it succeeds, fails for a reason that stays, or ctx ends.
func (s *Shop) retry(ctx context.Context, attempt func(ctx context.Context) error) error {
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		bounded, cancel := context.WithTimeout(ctx, patience)
		err := attempt(bounded)
		cancel()
		if err == nil || ctx.Err() != nil || !passes(err) {
			return err
		}
		if s.Retry != nil {
			s.Retry(err)
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}

// passes reports whether the reason for a failure may go away by itself.
func passes(err error) bool {
	answer, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return true // there was no answer: the connection broke, or patience ended
	}
	return slices.ContainsFunc([]string{
		"08",             // the connection, which is also what PgBouncer says when it loses its own
		"25006",          // read-only: the primary is one no more
		"40001", "40P01", // serialization failure, deadlock
		"53300", "57P0", // too many connections, shutdown
	}, func(code string) bool { return strings.HasPrefix(answer.Code, code) })
}

package ledger

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// statementName is the prepared statement of each client's connection. A fixed
// name is safe over a pooler that keeps statements per client, and fails
// loudly over one that does not.
const statementName = "pgconvoy_ledger"

// farewell bounds the polite end of a connection.
const farewell = time.Second

var errNoCancel = errors.New("ledger: no cancel request is sent")

// session is one connection with its socket, so that it can be ended at once.
//
// The driver, when a query is cut short, dials the server again to cancel it
// and lingers for up to 15 s. Neither is wanted here: a cancel could change
// the outcome that is being observed, and Stop must leave nothing behind.
type session struct {
	conn  *pgx.Conn
	raw   net.Conn
	open  atomic.Bool // from then on nothing is dialled
	local bool        // a commit was not replicated, since this was last cleared
}

// dial makes a connection. base is not changed.
func dial(ctx context.Context, base *pgx.ConnConfig) (*session, error) {
	s := &session{}
	cfg := base.Copy()
	next := cfg.DialFunc
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if s.open.Load() {
			return nil, errNoCancel
		}
		c, err := next(ctx, network, addr)
		if err == nil {
			s.raw = c
		}
		return c, err
	}
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		if unreplicated(n) {
			s.local = true
		}
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	s.open.Store(true)
	s.conn = conn
	return s, nil
}

// close ends the connection and waits until nothing of it is left.
func (s *session) close(ctx context.Context) {
	if !s.conn.IsClosed() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
		_ = s.conn.Close(ctx) // the server ends it in any case
		cancel()
	}
	_ = s.raw.Close()
	<-s.conn.PgConn().CleanupDone()
}

// parse reads a DSN. Its error never shows the DSN: what cannot be parsed
// cannot be redacted with certainty either.
func parse(what, dsn string) (*pgx.ConnConfig, error) {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("ledger: %s is not a connection string that PostgreSQL would accept (it is not shown, it may hold a password)", what)
	}
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = "pgconvoy-ledger"
	}
	return cfg, nil
}

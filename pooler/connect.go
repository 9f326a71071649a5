package pooler

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5/pgconn"
)

// Connect opens one connection to the admin console: database "pgbouncer", a user of admin_users (stats_users is
// enough to read). It is the caller's own function, so that TLS and the rotation of credentials stay the caller's.
// ctx bounds the opening only. A connection serves one call and is closed after it; several may be open at a time.
//
// The connection must speak to this one process: not to a balancer, and with so_reuseport not to the shared port.
type Connect func(ctx context.Context) (*pgconn.PgConn, error)

// ConnectWith makes a Connect from a configuration, which must come from [pgconn.ParseConfig]. The configuration is
// copied now; what the console cannot answer is removed from the copy: run-time parameters other than
// application_name (PgBouncer rejects unknown ones), and queries after connecting (target_session_attrs). The
// database is always "pgbouncer".
func ConnectWith(config *pgconn.Config) Connect {
	if config == nil {
		return func(context.Context) (*pgconn.PgConn, error) {
			return nil, errors.New("pooler: ConnectWith was given no configuration")
		}
	}
	c := config.Copy()
	c.Database = "pgbouncer"
	name, named := c.RuntimeParams["application_name"]
	c.RuntimeParams = map[string]string{}
	if named {
		c.RuntimeParams["application_name"] = name
	}
	c.ValidateConnect, c.AfterConnect = nil, nil
	return func(ctx context.Context) (*pgconn.PgConn, error) { return pgconn.ConnectConfig(ctx, c) }
}

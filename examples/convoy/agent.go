package main

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"runtime/debug"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconvoy/pgconvoy/pooler"
	"github.com/pgconvoy/pgconvoy/topology"
)

// consoleDSN is the environment variable that says where PgBouncer's admin console is, and as whom to log in.
const consoleDSN = "PGCONVOY_CONSOLE_DSN"

const agentUsage = `usage: convoy agent -name n -listen addr:port -config pgbouncer.ini [flags]

Runs beside one PgBouncer and keeps it on the proven primary, or a read one on fresh replicas. SIGTERM or SIGINT ends
it and leaves PgBouncer as it is: serving on the last proven route, or held, until it is started again. Let a
supervisor start it again when it fails.

Secrets come from the environment and the files of libpq, never from the command line:
  PGCONVOY_CONSOLE_DSN  PgBouncer's admin console, one of admin_users: "postgres://admin@127.0.0.1:6432/pgbouncer".
                        A password that is not in it is looked for in PGPASSWORD, then in the password file.` + environment

// agent keeps one PgBouncer on its route until ctx ends.
func agent(ctx context.Context, args []string) error {
	f := newFlags("agent", agentUsage)
	var w where
	w.flags(f)
	a := topology.Agent{}
	var l logTo
	l.flags(f)
	f.StringVar(&a.Name, "name", "", "`name` of the pooler, unique in the fleet")
	f.TextVar(&a.Listen, "listen", netip.AddrPort{}, "`addr:port` at which Envoy reaches the pooler")
	f.Var(serviceFlag{&a.Service}, "service", "what the pooler is for, a `service`: write or read")
	f.DurationVar(&a.Patience, "patience", 0, "how long a hold may last that nobody asked for; more than Patroni's ttl and 5s; default: 1m")
	f.DurationVar(&a.MaxLag, "max-lag", 0, "how far behind a replica may be to serve reads; negative: as far as it likes; default: 10s")
	p := pooler.Local{Keep: true}
	f.StringVar(&p.Config, "config", "", "PgBouncer's own `file`, pgbouncer.ini; its folder must be writable")
	databases := f.String("databases", "", "comma-separated `names` of the databases of this cluster, where PgBouncer serves others too; default: all")
	if err := parse(f, args); err != nil {
		return err
	}
	switch {
	case a.Name == "":
		return misuse(f, "-name is missing")
	case !a.Listen.IsValid():
		return misuse(f, "-listen is missing")
	case p.Config == "":
		return misuse(f, "-config is missing")
	case a.Patience < 0:
		return misuse(f, "-patience is negative")
	}
	var err error
	if a.Logger, err = l.open(f); err != nil {
		return err
	}
	if *databases != "" {
		p.Databases = strings.Split(*databases, ",")
	}
	if p.Connect, err = consoleOf(f); err != nil {
		return err
	}
	a.Pooler = &p
	if err := p.Validate(); err != nil {
		return misuse(f, "%v", err)
	}
	c, closed, err := w.find(f)
	if err != nil {
		return err
	}
	defer closed()
	log := a.Logger
	a.Cluster, a.Patroni = c.Cluster, c.Patroni
	a.Logger = log
	if err := a.Validate(); err != nil {
		return misuse(f, "%v", err)
	}
	defer func() { _ = p.Close() }() // nothing is lost with it
	debug.SetGCPercent(50)           // it lives beside every pooler: a little work for a smaller heap
	if err := a.Run(ctx); ctx.Err() == nil {
		return err
	}
	return nil // the end that was asked for
}

// consoleOf opens the console that the environment names.
func consoleOf(f *flag.FlagSet) (pooler.Connect, error) {
	dsn := os.Getenv(consoleDSN)
	if dsn == "" {
		return nil, misuse(f, "$%s is missing: where PgBouncer's admin console is", consoleDSN)
	}
	config, err := pgconn.ParseConfig(dsn)
	if err != nil {
		return nil, misuse(f, "$%s cannot be parsed", consoleDSN) // the parser's words may hold a password
	}
	return pooler.ConnectWith(config), nil
}

// serviceFlag reads a service by its name.
type serviceFlag struct{ *topology.Service }

func (s serviceFlag) String() string {
	if s.Service == nil {
		return ""
	}
	return s.Service.String()
}

func (s serviceFlag) Set(name string) error {
	for _, known := range []topology.Service{topology.Write, topology.Read} {
		if name == known.String() {
			*s.Service = known
			return nil
		}
	}
	return fmt.Errorf("it is %s or %s", topology.Write, topology.Read)
}

var _ flag.Value = serviceFlag{}

package main

import (
	"flag"
	"fmt"
	"log/slog"
	"os"
)

// environment is what the commands that act on a cluster read besides their flags.
const environment = `
  PGCONVOY_MONITOR_DSN  who asks the databases: "user=monitor sslmode=verify-full dbname=postgres"; the server's own
                        address replaces the host. What it omits, or all of it, comes from PGUSER, PGPASSWORD and so on.
  PATRONI_RESTAPI_USERNAME, PATRONI_RESTAPI_PASSWORD
                        of Patroni's REST API, where it has them.
A local stack that was found by -dir, or is the only one, needs neither.
`

// newFlags are those of a command that has more to say than its flags.
func newFlags(name, usage string) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.Usage = func() {
		fmt.Fprint(f.Output(), usage, "\nflags:\n")
		f.PrintDefaults()
	}
	return f
}

// logTo says how a role that runs for long logs to standard error.
type logTo struct{ format string }

func (l *logTo) flags(f *flag.FlagSet) {
	f.StringVar(&l.format, "log", "text", "`format` of the log on standard error: text or json")
}

func (l *logTo) open(f *flag.FlagSet) (*slog.Logger, error) {
	switch l.format {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, nil)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, nil)), nil
	}
	return nil, misuse(f, "-log %q is neither text nor json", l.format)
}

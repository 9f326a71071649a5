// Convoy is the reference program of the SDK: thin flags over its packages, for people and scripts.
//
//	convoy up          run a whole stack on this machine until interrupted
//	convoy view        show everything that is known about a stack
//	convoy switchover  make another member the primary, without a failed transaction
//	convoy agent       keep one PgBouncer on the proven primary, or on fresh replicas
//	convoy serve       serve the fleet to Envoys (a control plane)
//
// Exit codes: 0 done, 1 failed and nothing changed, 2 wrong usage, 3 outcome unknown.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"google.golang.org/grpc/grpclog"

	"github.com/pgconvoy/pgconvoy/topology"
)

const usage = `usage: convoy <command> [flags]

  up          run a whole stack on this machine until interrupted
  view        show everything that is known about a stack
  switchover  make another member the primary, without a failed transaction
  agent       keep one PgBouncer on the proven primary, or on fresh replicas
  serve       serve the fleet to Envoys (a control plane)

"convoy <command> -h" tells the flags of a command.
`

// errUsage: the command line is wrong; the reason was printed.
var errUsage = errors.New("wrong usage")

func main() {
	// The embedded etcd would print an error each time that Patroni ends one of its watches.
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string) int {
	commands := map[string]func(context.Context, []string) error{
		"up": up, "view": view, "switchover": switchover, "agent": agent, "serve": serve,
	}
	if len(args) == 0 || commands[args[0]] == nil {
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	err := commands[args[0]](ctx, args[1:])
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		return 2
	case errors.Is(err, topology.ErrUnknown):
		fmt.Fprintln(os.Stderr, "convoy:", err)
		return 3
	}
	fmt.Fprintln(os.Stderr, "convoy:", err)
	return 1
}

// parse reads flags; what is left over is wrong.
func parse(f *flag.FlagSet, args []string) error {
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return errUsage // flag has printed the reason
	}
	if f.NArg() > 0 {
		return misuse(f, "unexpected argument %q", f.Arg(0))
	}
	return nil
}

// misuse prints why the command line is wrong.
func misuse(f *flag.FlagSet, format string, args ...any) error {
	fmt.Fprintf(f.Output(), "convoy %s: %s\n", f.Name(), fmt.Sprintf(format, args...))
	return errUsage
}

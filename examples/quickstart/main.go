// Quickstart starts a whole stack on this machine, lets clients write through Envoy, switches over to another primary,
// kills the primary, and prints what the clients saw. It leaves no process and no file behind, also on Ctrl-C.
//
// With -dcs consul or -dcs zookeeper the stack runs on that store (scripts/setup --stores installs it).
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
	"time"

	"google.golang.org/grpc/grpclog"

	"github.com/pgconvoy/pgconvoy/topology"
	"github.com/pgconvoy/pgconvoy/topology/ledger"
	"github.com/pgconvoy/pgconvoy/topology/local"
)

// calm is how long the clients write undisturbed before, between and after the events.
const calm = 3 * time.Second

// stores are the kinds of store that a stack runs by itself, with the name of each.
var stores = map[string]string{"embedded": "etcd", "consul": "Consul", "zookeeper": "ZooKeeper"}

func main() {
	dcs := flag.String("dcs", "embedded", "configuration `store` of the stack: embedded (etcd), consul or zookeeper")
	flag.Parse()
	if stores[*dcs] == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	// The embedded etcd would print an error each time that Patroni ends one of its watches.
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *dcs)
	stop()
	switch {
	case err == nil:
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "\nstopped; nothing is left behind")
		os.Exit(130)
	default:
		fmt.Fprintln(os.Stderr, "\nquickstart:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dcs string) error {
	out := newScreen(os.Stdout)
	out.say("starting: " + stores[dcs] + ", 3 x Patroni and PostgreSQL, 5 x PgBouncer, Envoy")
	r := local.Runner{DCS: local.DCS{Kind: dcs}, Progress: out.waitFor}
	err := r.Run(ctx, topology.Spec{}, func(ctx context.Context, s *local.Stack) error {
		out.say("ready: all routed")
		fmt.Fprintln(out, s.View(ctx))
		return demonstrate(ctx, s, out)
	})
	out.rest()
	if err == nil {
		out.say("everything is stopped")
	}
	return err
}

// demonstrate runs the clients through both events and prints the table.
func demonstrate(ctx context.Context, s *local.Stack, out *screen) error {
	load := ledger.Load{} // 20 writers, a transaction each 10 ms
	for _, n := range s.Spec().Nodes {
		load.Direct = append(load.Direct, s.DirectDSN(n.Name)) // past the whole path: the server's own gap
	}
	l, err := ledger.Start(ctx, s.WriteDSN(), load)
	if err != nil {
		return err
	}
	lctx, done := context.WithCancel(ctx)
	followed := out.follow(lctx, s, l)
	err = events(ctx, s, l, out)
	done()
	<-followed

	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	report, serr := l.Stop(stop)
	if err := errors.Join(err, serr); err != nil {
		return err
	}
	out.rest()
	fmt.Fprintf(out, "\nwhat %d clients saw, writing through Envoy:\n\n%v\n", report.Writers, report)
	if report.Lost > 0 || report.Surplus > 0 {
		return fmt.Errorf("%d acknowledged transactions are lost, %d rows were never sent", report.Lost, report.Surplus)
	}
	return nil
}

func events(ctx context.Context, s *local.Stack, l *ledger.Ledger, out *screen) error {
	if err := pause(ctx, calm); err != nil {
		return err
	}
	out.say("planned switchover")
	l.Mark("planned switchover")
	report, err := s.Do(ctx, topology.Switchover{})
	if err != nil {
		return err
	}
	fmt.Fprint(out, report)
	if err := pause(ctx, calm); err != nil {
		return err
	}

	out.waitFor("the replicas to follow the new primary")
	if err := s.Await(ctx, s.Ready); err != nil { // the next crash must find a synchronous standby
		return err
	}
	primary := report.To
	out.say("kill -9 of the postmaster of " + primary)
	l.Mark("primary killed")
	if err := s.Signal(primary+"/postgres", syscall.SIGKILL); err != nil {
		return err
	}
	err = s.Await(ctx, func(v topology.View) bool { return v.Leadership.Member != primary && v.Routed() })
	if err != nil {
		return err
	}
	return pause(ctx, calm)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

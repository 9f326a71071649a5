package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"google.golang.org/grpc"

	"github.com/pgconvoy/pgconvoy/envoyconf/xds"
	"github.com/pgconvoy/pgconvoy/topology"
)

const serveUsage = `usage: convoy serve -name n -listen addr:port [flags]

Serves the fleet to any number of Envoys, as one EDS resource for each service ("write", "read"). Any number of control
planes run side by side; an Envoy whose control planes are all gone keeps its last endpoints. Connections are not
encrypted: listen where only Envoys are. Envoy's side of it is a cluster in its bootstrap file.
`

// serve is a control plane until ctx ends.
func serve(ctx context.Context, args []string) error {
	f := newFlags("serve", serveUsage)
	var w where
	w.flags(f)
	var l logTo
	l.flags(f)
	plane := topology.ControlPlane{}
	f.StringVar(&plane.Name, "name", "", "`name` of this control plane, unique among them")
	var at netip.AddrPort
	f.TextVar(&at, "listen", netip.AddrPort{}, "`addr:port` at which Envoys connect")
	if err := parse(f, args); err != nil {
		return err
	}
	switch {
	case plane.Name == "":
		return misuse(f, "-name is missing")
	case !at.IsValid():
		return misuse(f, "-listen is missing")
	}
	log, err := l.open(f)
	if err != nil {
		return err
	}
	c, closed, err := w.find(f)
	if err != nil {
		return err
	}
	defer closed()
	router := xds.New(xds.Config{Logger: log})
	plane.Cluster, plane.Router = c.Cluster, router
	plane.Logger = log
	if err := plane.Validate(); err != nil {
		return misuse(f, "%v", err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", at.String())
	if err != nil {
		return fmt.Errorf("-listen: %w", err)
	}
	server := grpc.NewServer(xds.ServerOptions()...)
	router.Register(server)
	return serveAt(ctx, listener, server, &plane)
}

// serveAt runs a control plane and the server of its router, until ctx or one of them ends.
func serveAt(ctx context.Context, listener net.Listener, server *grpc.Server, plane *topology.ControlPlane) error {
	rctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	served := make(chan struct{})
	go func() {
		defer close(served)
		cancel(fmt.Errorf("serving at %s has ended: %w", listener.Addr(), server.Serve(listener)))
	}()
	err := plane.Run(rctx) // the cause, where serving has ended
	server.Stop()
	<-served
	if ctx.Err() != nil {
		return nil // the end that was asked for
	}
	return err
}

package xds_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"google.golang.org/grpc"

	"github.com/pgconvoy/pgconvoy/envoyconf"
	"github.com/pgconvoy/pgconvoy/envoyconf/xds"
)

// A control plane that drains one PgBouncer: when Wait returns nil, no Envoy sends it new connections.
func Example() {
	ctx := context.Background()
	server := xds.New(xds.Config{})
	g := grpc.NewServer(xds.ServerOptions()...)
	server.Register(g)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	go g.Serve(l)
	defer g.Stop()

	endpoints := []envoyconf.Endpoint{
		{Addr: netip.MustParseAddrPort("10.0.0.1:6432")},
		{Addr: netip.MustParseAddrPort("10.0.0.2:6432"), Health: envoyconf.Draining},
	}
	version, err := server.Set(ctx, "write", endpoints)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(version == envoyconf.Version(endpoints))
	fmt.Println(server.Wait(ctx, "write", version), len(server.Envoys())) // none is connected here
	// Output:
	// true
	// <nil> 0
}

// Package xds serves the endpoints of each service to any number of Envoys, and proves that they applied them.
//
//	server := xds.New(xds.Config{})
//	g := grpc.NewServer(xds.ServerOptions()...)
//	server.Register(g) // the caller owns the listener, TLS and the gRPC server
//	...
//	version, err := server.Set(ctx, "write", endpoints)
//	err = server.Wait(ctx, "write", version) // every connected Envoy has it, or who has not and why
//
// Each service is one EDS resource, served by ADS in both variants of the protocol (delta and state of the world).
// A version is the hash of the content, so several control planes that know the same endpoints serve the same versions,
// and an Envoy that changes over is sent nothing new. Each response carries one service, so an Envoy's rejection is of
// exactly that one. What an Envoy rejected is not sent to it again until its content changes.
package xds

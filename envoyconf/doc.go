// Package envoyconf describes Envoy as the entry point of a PgBouncer fleet: the [Endpoint] values that a control
// plane serves, and the bootstrap that makes one Envoy a layer-4 proxy for a database.
//
// A [Fleet] says what one Envoy listens on and where its endpoints come from: a control plane (package envoyconf/xds
// serves one), or a fixed list. [L4] turns it into a bootstrap:
//
//	b, err := envoyconf.L4{}.Bootstrap(envoyconf.Fleet{
//		Node:          "envoy-1",
//		Admin:         netip.MustParseAddrPort("127.0.0.1:9901"),
//		ControlPlanes: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.5:18000")},
//		Listeners:     []envoyconf.Listener{{Service: "write", Listen: netip.MustParseAddrPort("0.0.0.0:5432")}},
//	})
//
// Clusters and listeners stand in the bootstrap and never change; endpoints alone move, by EDS. So a change of the
// fleet never re-creates a cluster, and never waits for one to warm.
//
// The package needs the generated Envoy types only: no gRPC, nothing that runs.
package envoyconf

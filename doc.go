// Package pgconvoy is the map of an SDK for highly available PostgreSQL: clients -> Envoy -> a fleet of PgBouncers -> a
// Patroni cluster, with etcd, Consul or ZooKeeper as the configuration store. It holds no code; import what you need:
//
//   - [github.com/pgconvoy/pgconvoy/topology/local] runs a whole stack on this machine;
//   - [github.com/pgconvoy/pgconvoy/topology] has the roles that a stack is made of, and the seams between them;
//   - [github.com/pgconvoy/pgconvoy/patroni] reads, follows and talks to a Patroni cluster;
//   - [github.com/pgconvoy/pgconvoy/pooler] controls a PgBouncer;
//   - [github.com/pgconvoy/pgconvoy/envoyconf] makes Envoy's configuration, and its subpackage xds serves the endpoints;
//   - [github.com/pgconvoy/pgconvoy/dcs] is the contract with the store, with back ends as subpackages;
//   - [github.com/pgconvoy/pgconvoy/topology/topologytest] runs one in a test, and breaks it on purpose;
//   - [github.com/pgconvoy/pgconvoy/topology/ledger] has clients that account for every transaction.
//
// # Evolution
//
// Versions are v0.x: the API may still move, and the changelog says how. What will hold: an interface that others
// implement never gains a method (a new ability is an interface of one method, found by assertion); structs gain
// fields, so use keyed literals; dcs.Version, patroni.Epoch and envoyconf.Endpoint stay comparable; records in the
// store carry a version, and unknown fields in them are ignored.
//
// The two latest releases of Go are supported.
package pgconvoy

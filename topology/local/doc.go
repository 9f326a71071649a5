// Package local runs a whole stack on this machine: a store, Patroni nodes with their PostgreSQL, PgBouncers with
// their agents, a control plane and an Envoy, from one [topology.Spec].
//
//	err := local.Run(ctx, topology.Spec{}, func(ctx context.Context, s *local.Stack) error {
//		pool, err := pgxpool.New(ctx, s.WriteDSN()) // through Envoy and PgBouncer to the primary
//		...
//	})
//
// Everything that it starts is gone when Run returns, and also after kill -9 of the calling process. It works on Linux.
//
// The store is an etcd of the stack's own, or one of its own or of yours of another kind: see [DCS]. Patroni needs its
// client for that store (its extras etcd3, consul and zookeeper).
//
// Importing this package brings in an etcd server, and the clients of all stores; see package dcs/embedded for what the
// former means.
package local

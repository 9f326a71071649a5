// Package dcs is the contract between pgconvoy and a configuration store (etcd, Consul or ZooKeeper): directories
// followed as levels, compare-and-put, leases, and a lock with a fencing token.
//
// The back ends are subpackages named for the technology; each works over the caller's own client, so endpoints, TLS
// and credentials stay the caller's. Package dcs/memory is the in-process twin for tests and examples, dcs/embedded a
// real etcd in this process.
//
// A watch never says "nothing there" because the store was in trouble: see [Reader] and [Snapshot]. Staleness is part
// of an element; an error is the end.
//
//	for s, err := range store.Watch(ctx, "/service/demo") {
//		if err != nil {
//			return err // bad argument, refused credentials, or the end of ctx
//		}
//		leader, ok := s.Get("/service/demo/leader") // means something if s.Known()
//		...                                         // s.Stale says why this may be old, s.At how old
//	}
//
// A watch runs in a loop and cannot be part of a select; [Latest] makes a channel of it that holds the newest element.
//
// A back end of your own implements [Store], builds its snapshots with [NewSnapshot], [Snapshot.With],
// [Snapshot.Without] and [Snapshot.Renew], and proves itself with package dcs/dcstest.
package dcs

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
// # The contract
//
// [Reader], [Writer], [Store], [Lock] and [Revoker] have it in numbered sentences. Each is proved by cases of package dcs/dcstest,
// which every back end here passes against real servers that are cut off, silent, killed, restarted and restored.
//
// An error of a write is one of three kinds. [ErrConflict], [ErrInvalid], [ErrLeaseLost] and every other one that is not
// the next say that nothing was changed. [ErrUnknown] says that there was no answer: the change may have been made, and
// may even be on its way still. It is never sent again. Read the key, and go on from the version that it has: a late
// arrival is then a conflict. (On ZooKeeper that holds as long as the key is not deleted and made again: see its package.)
//
// # What the stores do
//
// The numbers of a [Version] are the store's own, and so are some habits behind the same contract:
//
//	                        etcd              Consul              ZooKeeper          memory
//	Version.Created         CreateRevision    CreateIndex         Czxid              a counter
//	Version.Modified        ModRevision       ModifyIndex         data version       the same counter
//	Modified of a new key   = Created         = Created           begins anew        = Created
//	compared by             the store, both   Modified; Created   data version;      the store, both
//	                                          by a read before    Czxid by a read
//	a lease is              a lease           a session           the connection's   a lease
//	                                                              session
//	TTL                     from 1 s,         10 s to 24 h,       the session        any
//	                        whole seconds     ended up to 2x      timeout
//	                                          later
//	a plain Put to a        keeps its lease   keeps its session   keeps its owner    keeps its lease
//	leased key
//	a leased Put to a key   changes its       deletes and makes   deletes and makes  changes its
//	of another lease        lease             it anew: Created    it anew: Created   lease
//	                                          grows               grows
//	keys below a key        yes               yes                 not below a leased yes
//	                                                              one; it cannot be
//	                                                              deleted then
//	a large leased value    yes               refused             yes                yes
//	ends another's lease    yes               yes, not in one     no                 yes
//	(Revoker)                                 step
//
// So compare whole versions, take Created alone for a fencing token, and put nothing below a leased key.
//
// A back end of your own implements [Store], builds its snapshots with [NewSnapshot], [Snapshot.With],
// [Snapshot.Without] and [Snapshot.Renew], and proves itself with package dcs/dcstest.
package dcs

// Package zookeeper is the ZooKeeper back end of package dcs, over the caller's own connection.
//
//	const session = 10 * time.Second
//	conn, _, err := zk.Connect(servers, session, zk.WithDialer(zookeeper.Dialer(session, nil)), zk.WithLogInfo(false))
//	...
//	err = conn.AddAuth("digest", []byte("user:password")) // where nodes have access control
//	store := zookeeper.New(conn)
//	store.TTL = session // for leases
//
// Servers, TLS and credentials are the connection's. [Dialer] is worth its line: without it a server that takes a new
// connection and says nothing holds the client up for seven session timeouts. The channel of events that
// Connect returns stays the caller's; nobody has to read it. WithLogInfo(false) leaves the client's errors in the log
// only. AddAuth waits for a session.
//
// # Nodes
//
// A key is a node. A node that only holds others is no key: one without data (null, which is how the store makes
// parents), and one with empty data that has others below it (which is how Patroni's client makes them). So a key with an
// empty value is seen only while nothing is below it. Keys of a lease are ephemeral nodes: nothing can be put below them.
// A key that has others below it cannot be deleted.
//
// [dcs.Version].Created is the node's czxid, Modified its data version. ZooKeeper's own check covers the data version
// alone, so Created is compared by a synced read right before; when a key was deleted and made again within that moment,
// the new one is overwritten or deleted, and the error says so. A call that was left behind, see below, may do the same.
//
// A read or a confirmation first has a majority of the servers agree on a transaction that changes nothing (ZooKeeper's own
// sync asks a leader that may lead no more). That takes READ on the root; without it a sync has to do.
//
// # Rights
//
// Watching and reading need READ on the directory and on all below it; a watch ends with an error when it is refused,
// and a refusal is never "nothing there". Writing needs CREATE and DELETE on the directory of a key and WRITE on the key.
// Access rights are not inherited: set Store.ACL. Servers do not say that a right to read was taken away: a watch finds
// out at its next confirmation.
//
// # Sessions
//
// A lease is the connection's session: all leases of one connection end together when the session does. See [Store.Lease].
//
// The client's calls take no context, and what waits in it cannot be called back. The store hands it nothing while there
// is no session; a call that was handed over when the connection broke may still be sent after the next connection, in
// another session even. So a write without an answer is unknown ([dcs.ErrUnknown]) until the connection is back: read the
// key again then. A call that its context has left ends with the connection's next event, and so does its goroutine.
//
// Armed watches cannot be taken back either. The store arms one for each node and kind and shares it among all its
// watches; those that nobody wants any more stay until they fire.
//
// A server whose history ends before what a client has seen (restored from a backup) refuses that client, which finds no
// other way than to be opened anew: a watch stays stale meanwhile.
package zookeeper

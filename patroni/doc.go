// Package patroni reads, follows and talks to a Patroni cluster.
//
// [Parse] decodes what Patroni keeps in its configuration store into a [Cluster], [Watch] follows it, [WatchAll] follows
// all clusters of a namespace, and [Source] adds the question that routing depends on: which member is proven to be a
// writable primary, and at which [Epoch]. [Client] speaks Patroni's REST API. [NodeConfig] makes a patroni.yml.
//
// Patroni's keys are only ever read. Changes go through its REST API.
package patroni

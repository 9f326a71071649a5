// Package topologytest runs a real stack in anybody's tests - a store, Patroni
// with PostgreSQL, PgBouncers with their agents, a control plane and Envoy -
// and breaks it on purpose.
//
//	func TestOrdersSurviveFailover(t *testing.T) {
//		s := topologytest.Start(t, topologytest.Options{})
//		l := s.Write(t, ledger.Load{Writers: 20, Every: 10 * time.Millisecond})
//		s.Kill(s.Primary()) // -9
//		s.Await(topologytest.Routed)
//		if r := l.Stop(); r.Lost > 0 || r.Failed > r.InFlight {
//			t.Fatal(r)
//		}
//	}
//
// Everything is real: what is killed is a process, what is cut is a
// connection. Nothing needs root, except where a method says so. A test on a
// machine without the programs is skipped, and says what to install; with
// PGCONVOY_REQUIRE=1 in the environment it fails instead.
//
// # Components
//
// Faults name components as a [topology.View] does. Of a stack with the
// default Spec:
//
//	n1            a node, with all that runs on it
//	n1/patroni    its Patroni alone
//	n1/postgres   its PostgreSQL
//	pgb-1         a PgBouncer
//	pgb-1/agent   its agent
//	cp-1          the control plane
//	envoy         Envoy
//	etcd-1        an etcd server; with [Options.DCS] consul-1 or zookeeper-1
//
// # Links
//
// Components reach each other through proxies, so that a [Link] can be cut,
// delayed, throttled or made deaf. [Stack.Links] lists them; besides the
// components, these names appear: "client" is whoever uses WriteDSN and
// ReadDSN; "coordinator" is this process where it speaks to a Patroni;
// "poolers" are all PgBouncers where they reach a PostgreSQL, "replicas" the
// nodes that stream from one, "peers" the other Patronis (Patroni publishes
// one address for all of them).
//
// # Faults
//
// Each fault returns its undo, which may be left to the end of the test: there
// all that is left is undone, the last fault first.
//
// Processes are killed, asked to end or frozen ([Stack.Kill], [Stack.Terminate],
// [Stack.Freeze]), links are cut, made deaf or slow ([Stack.Cut],
// [Stack.HalfOpen], [Stack.Delay], [Stack.Throttle], [Stack.Isolate]), the store
// loses its majority, its leader or its past ([Stack.LoseQuorum],
// [Stack.StoreLeader], [Stack.CompactStore]), and a node hangs, lags, is
// promoted by hand or has no room left ([Stack.HangPromote],
// [Stack.HangRestore], [Stack.PauseReplay], [Stack.Promote], [Stack.FillDisk]).
//
// [Stack.Chaos] does faults at random: the same seed gives the same sequence,
// and a test that fails shows both.
//
//	s.Chaos(17, 30*time.Second) // or with some of s.Faults(), or with faults of your own
//
// # How it runs
//
// Agents, control plane and etcd are processes too: this test binary, started
// again. Importing this package is enough for that: a process that was started
// so becomes its role before anything else happens. Therefore this package
// belongs into tests only.
package topologytest

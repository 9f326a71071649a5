package patroni_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/memory"
	"github.com/pgconvoy/pgconvoy/patroni"
)

// cluster is what Patroni would have written.
func cluster(ctx context.Context) *memory.Store {
	store := memory.New()
	for key, value := range map[string]string{
		"initialize": "7268616322854375442",
		"members/n1": `{"conn_url":"postgres://10.0.0.1:5432/postgres","state":"running","role":"primary","timeline":1}`,
		"members/n2": `{"conn_url":"postgres://10.0.0.2:5432/postgres","state":"running","role":"replica","timeline":1}`,
		"leader":     "n1",
	} {
		if _, err := store.Put(ctx, "/service/demo/"+key, []byte(value), dcs.Version{}); err != nil {
			panic(err)
		}
	}
	return store
}

// Watching needs nothing but the right to read, and never says "no leader" because the store was in trouble.
func ExampleWatch() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	store := cluster(ctx) // in production etcd.New(client), consul.New(...) or zookeeper.New(...)
	for c, err := range patroni.Watch(ctx, store, "/service/demo") {
		if err != nil {
			fmt.Println("ended:", err) // a bad argument, refused credentials, or the end of ctx
			return
		}
		fmt.Println(c, "stale:", c.Stale)
		if c.Stale == nil {
			store.SetDown(errors.New("no quorum"))
		} else {
			cancel()
		}
	}
	// Output:
	// /service/demo: leader n1, n1 primary running, n2 replica running stale: <nil>
	// /service/demo: leader n1, n1 primary running, n2 replica running stale: no quorum
	// ended: context canceled
}

// One watch follows every cluster of a namespace.
func ExampleWatchAll() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	store := cluster(ctx) // has /service/demo
	clusters := map[string]patroni.Cluster{}
	for c, err := range patroni.WatchAll(ctx, store, "/service") {
		switch {
		case err != nil:
			fmt.Println("ended:", err)
			return
		case c.Path == "/service": // about the watch: all clusters were given
			fmt.Println("complete:", c.Known(), "stale:", c.Stale)
			_, _ = store.Put(ctx, "/service/other/leader", []byte("m1"), dcs.Version{})
		case c.Gone:
			delete(clusters, c.Path)
			fmt.Println(c.Path, "was removed,", len(clusters), "left")
			cancel()
		default:
			clusters[c.Path] = c
			fmt.Println(c)
			if c.Path == "/service/other" {
				_ = store.Delete(ctx, "/service/other/leader", c.LeaderVersion)
			}
		}
	}
	// Output:
	// /service/demo: leader n1, n1 primary running, n2 replica running
	// complete: true stale: <nil>
	// /service/other: leader m1
	// /service/other was removed, 1 left
	// ended: context canceled
}

// always is a Prober for servers that are all writable, on one timeline. The real one is [patroni.SQL].
type always struct{}

func (always) Probe(ctx context.Context, _ netip.AddrPort) iter.Seq[patroni.Proof] {
	return func(yield func(patroni.Proof) bool) {
		for ctx.Err() == nil {
			if !yield(patroni.Proof{Writable: true, Timeline: 1, SystemID: "7268616322854375442", At: time.Now()}) {
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
}

// A Source tells which member is proven to be a writable primary. In production its Prober is a [patroni.SQL].
func ExampleSource() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	source := &patroni.Source{Store: cluster(ctx), Path: "/service/demo", Prober: always{}}
	for l, err := range source.Watch(ctx) {
		if err != nil {
			fmt.Println("ended:", err)
			return
		}
		if l.Phase == patroni.Writable {
			fmt.Println(l.Member, l.Addr, "timeline", l.Epoch.Timeline)
			return
		}
	}
	// Output:
	// n1 10.0.0.1:5432 timeline 1
}

// The mark that a pooler carries says which leadership it was routed to. It never goes back.
func ExampleEpoch_Compare() {
	old, _ := patroni.ParseEpoch("7268616322854375442/3/1027")
	next := patroni.Epoch{SystemID: "7268616322854375442", Timeline: 4, Created: 1410}
	fmt.Println(next.Compare(old, false), "|", old.Compare(next, false))
	// Output:
	// newer | older
}

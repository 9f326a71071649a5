package topology_test

import (
	"context"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/memory"
	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/topology"
)

// powerSwitch is a platform's way to take a node out.
type powerSwitch struct{}

var _ topology.Fencer = powerSwitch{}

// Fence returns nil only when the platform has said that the node is off.
func (powerSwitch) Fence(_ context.Context, m patroni.Member) error {
	fmt.Println("power off", m.Name)
	return nil
}

// A platform that can power its nodes off shortens the death of one: beside agents and control plane runs this.
func ExampleFencing() {
	ctx := context.Background()
	var cluster topology.Cluster // its Path, Store (etcd or Consul) and Prober
	fencing := &topology.Fencing{Cluster: cluster, Name: "rack-7", Fencer: powerSwitch{}}
	fmt.Println(fencing.Run(ctx))
}

// The same on a cluster that is but its keys: n1, the primary, dies, and its claim is over long before its time.
func ExampleFencer() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cluster := &twoNodes{store: &memory.Store{TTL: time.Hour}} // n1 would hold the leader key for an hour
	claim := cluster.start(ctx)

	fencing := &topology.Fencing{
		Cluster: topology.Cluster{Path: "/service/demo", Store: cluster.store, Prober: cluster},
		Name:    "rack-7", Fencer: powerSwitch{}, After: 50 * time.Millisecond,
		Patroni: &patroni.Client{HTTP: &http.Client{Transport: cluster}},
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = fencing.Run(ctx)
	}()
	for s := range cluster.store.Watch(ctx, "/service/demo") {
		if _, held := s.Get("/service/demo/leader"); !held {
			break
		}
		if cluster.asked.Load() > 50 {
			cluster.dead.Store(true) // once n1 is proven to be the primary
		}
	}
	fmt.Println("the leader key is free")
	cancel()
	<-done
	<-claim
	// Output:
	// power off n1
	// the leader key is free
}

// twoNodes stands for PostgreSQL and Patroni on n1, the primary, and n2, its synchronous standby.
type twoNodes struct {
	store *memory.Store
	asked atomic.Int64 // how often n1 has said that it is the primary
	dead  atomic.Bool
}

// start writes what Patroni would. The result is closed when n1 holds nothing any more.
func (n *twoNodes) start(ctx context.Context) (over <-chan struct{}) {
	n.store.Reconfirm = 10 * time.Millisecond
	for key, value := range map[string]string{
		"initialize": "7", "config": `{"synchronous_mode": true}`, "sync": `{"leader": "n1", "sync_standby": "n2"}`,
		"members/n2": `{"conn_url": "postgres://10.0.0.2:5432/postgres", "api_url": "http://n2:8008/patroni", "state": "running"}`,
	} {
		if _, err := n.store.Put(ctx, "/service/demo/"+key, []byte(value), dcs.Version{}); err != nil {
			fmt.Println(err)
		}
	}
	held, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		_ = n.store.Lease(ctx, func(ctx context.Context, w dcs.Writer) error {
			defer close(held)
			member := `{"conn_url": "postgres://10.0.0.1:5432/postgres", "api_url": "http://n1:8008/patroni", "state": "running"}`
			if _, err := w.Put(ctx, "/service/demo/members/n1", []byte(member), dcs.Version{}); err != nil {
				return err
			}
			if _, err := w.Put(ctx, "/service/demo/leader", []byte("n1"), dcs.Version{}); err != nil {
				return err
			}
			held <- struct{}{}
			<-ctx.Done()
			return context.Cause(ctx)
		})
	}()
	<-held
	return ended
}

// Probe is PostgreSQL's answer.
func (n *twoNodes) Probe(ctx context.Context, addr netip.AddrPort) iter.Seq[patroni.Proof] {
	return func(yield func(patroni.Proof) bool) {
		for ctx.Err() == nil {
			p := patroni.Proof{SystemID: "7", Timeline: 1, At: time.Now()}
			switch {
			case addr.Addr().String() != "10.0.0.1":
			case n.dead.Load():
				p.Err = syscall.ECONNREFUSED
			default:
				p.Writable = true
				n.asked.Add(1)
			}
			if !yield(p) {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// RoundTrip is Patroni's answer.
func (n *twoNodes) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host == "n1:8008" && n.dead.Load() {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	body := `{"state": "running", "role": "replica", "timeline": 1}`
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(body))}, nil
}

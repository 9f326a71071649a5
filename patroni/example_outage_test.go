package patroni_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/memory"
	"github.com/pgconvoy/pgconvoy/patroni"
)

// The store is gone. Nothing new can be proven, and the members themselves say whether the primary goes on.
func ExampleOutage() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	n1 := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { // in production n1's Patroni
		_, _ = io.WriteString(w, `{"state":"running","role":"primary","timeline":1,"failsafe_mode_is_active":true}`)
	}))
	defer n1.Close()
	store := memory.New()
	member := fmt.Sprintf(`{"conn_url":"postgres://10.0.0.1:5432/postgres","api_url":"%s/patroni"}`, n1.URL)
	for key, value := range map[string]string{"leader": "n1", "members/n1": member} {
		if _, err := store.Put(ctx, "/service/demo/"+key, []byte(value), dcs.Version{}); err != nil {
			fmt.Println(err)
			return
		}
	}

	source := &patroni.Source{Store: store, Path: "/service/demo", Prober: always{}, Client: &patroni.Client{}}
	for l, err := range source.Watch(ctx) {
		switch o := l.Outage; {
		case err != nil:
			fmt.Println("ended:", err)
			return
		case l.Phase == patroni.Writable && l.Stale == nil:
			store.SetDown(errors.New("no quorum"))
		case o != nil && o.Ahead != "":
			fmt.Println(o.Ahead, "has taken over")
			return
		case o != nil && o.Failsafe:
			fmt.Println(o.Reason)
			return
		}
	}
	// Output:
	// n1 goes on as the primary by failsafe mode
}

// pair is a Prober for a primary and a replica that has replayed all of its WAL.
type pair struct{}

func (pair) Probe(ctx context.Context, addr netip.AddrPort) iter.Seq[patroni.Proof] {
	return func(yield func(patroni.Proof) bool) {
		for p := range (always{}).Probe(ctx, addr) {
			if p.LSN = 50 << 20; addr.Addr() == netip.MustParseAddr("10.0.0.2") {
				p.Writable = false
			}
			if !yield(p) {
				return
			}
		}
	}
}

// For a read service the replicas are followed too: fresh is who streams and is not too far behind.
func ExampleSource_replicas() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	source := &patroni.Source{
		Store: cluster(ctx), Path: "/service/demo", Prober: pair{},
		Replicas: true, MaxLag: time.Second,
	}
	for l, err := range source.Watch(ctx) {
		if err != nil {
			fmt.Println("ended:", err)
			return
		}
		for _, r := range l.Replicas {
			if l.Phase == patroni.Writable && !r.Proof.At.IsZero() {
				fmt.Println(r.Member, r.Addr, "fresh:", r.Fresh, "behind:", r.Lag)
				return
			}
		}
	}
	// Output:
	// n2 10.0.0.2:5432 fresh: true behind: 0s
}

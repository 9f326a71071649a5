package consul_test

import (
	"context"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/storetest"
)

// BenchmarkDelivery measures how much later than a bare loop of blocking queries a Watch delivers the same change.
// ns/op is one write with both deliveries; the custom figures are medians and the 99th percentiles, and their ratio.
func BenchmarkDelivery(b *testing.B) {
	for _, servers := range []int{1, 3} {
		b.Run([]string{1: "one", 3: "three"}[servers], func(b *testing.B) { delivery(b, storetest.Consul(b, servers, nil)) })
	}
}

func delivery(b *testing.B, s *storetest.Servers) {
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	store := connect(b, s.Addrs()[0])
	first := storetest.Put(b, store, "k", "0", dcs.Version{})

	kv := client(b, s.Addrs()[0]).KV()
	bareAt := make(chan time.Time, 1)
	bareDone := make(chan struct{})
	go func() {
		defer close(bareDone)
		for index := first.Modified; ; {
			_, meta, err := kv.List(dir[1:]+"/", (&api.QueryOptions{WaitIndex: index}).WithContext(ctx))
			if err != nil {
				return
			}
			at := time.Now()
			if meta.LastIndex > index {
				index = meta.LastIndex
				bareAt <- at
			}
		}
	}()
	oursAt := make(chan time.Time, 1)
	ready, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		last := first
		for snap, err := range store.Watch(ctx, dir) {
			if err != nil {
				return
			}
			at := time.Now()
			switch e, _ := snap.Get(dir + "/k"); {
			case !snap.Known():
			case e.Version == first && ready != nil:
				close(ready)
				ready = nil
			case e.Version != last:
				last = e.Version
				oursAt <- at
			}
		}
	}()
	<-ready

	v := first
	storetest.Delivery(b, func() { v = storetest.Put(b, store, "k", "x", v) }, bareAt, oursAt)
	cancel()
	<-done
	<-bareDone
}

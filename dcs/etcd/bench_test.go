package etcd_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/embedded"
	"github.com/pgconvoy/pgconvoy/dcs/etcd"
	"github.com/pgconvoy/pgconvoy/internal/storetest"
)

// BenchmarkDelivery measures when a Watch delivers a change, and when a bare watch of the etcd client does that runs
// beside it: the floor. ns/op is one write with both deliveries.
func BenchmarkDelivery(b *testing.B) {
	s := start(b, embedded.Config{})
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()

	bare := s.Client().Watch(clientv3.WithRequireLeader(ctx), dir+"/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	<-bare
	bareAt := make(chan time.Time, 1)
	go func() {
		for range bare {
			bareAt <- time.Now()
		}
	}()
	oursAt := make(chan time.Time, 1)
	ready := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		var last dcs.Version
		for snap, err := range s.Store().Watch(ctx, dir) {
			if err != nil {
				return
			}
			at := time.Now()
			e, ok := snap.Get(dir + "/k")
			switch {
			case !ok:
				close(ready)
			case e.Version != last:
				last = e.Version
				oursAt <- at
			}
		}
	}()
	<-ready

	var v dcs.Version
	storetest.Delivery(b, func() { v = storetest.Put(b, s.Store(), "k", "x", v) }, bareAt, oursAt)
	cancel()
	<-done
}

// BenchmarkConfirmation is one confirmation of a directory in which nothing changed. The floors are the reading of the
// keys, which it cannot do without, and that of everything, which it does not do.
func BenchmarkConfirmation(b *testing.B) {
	for _, n := range []int{9, 9_000, 90_000} {
		s := start(b, embedded.Config{})
		var ops []clientv3.Op
		for i := range n {
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("%s/production-%05d/members/%d", dir, i/9, i%9), strings.Repeat("x", 300)))
			if len(ops) == 100 || i == n-1 {
				if _, err := s.Client().Txn(b.Context()).Then(ops...).Commit(); err != nil {
					b.Fatal(err)
				}
				ops = nil
			}
		}
		get := func(opts ...clientv3.OpOption) {
			if _, err := s.Client().Get(b.Context(), dir+"/", append(opts, clientv3.WithPrefix())...); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(fmt.Sprintf("confirm/%d", n), func(b *testing.B) {
			store := etcd.New(s.Client())
			store.Reconfirm = time.Nanosecond
			ctx, cancel := context.WithCancel(b.Context())
			levels, wait := dcs.Latest(store.Watch(ctx, dir))
			for s := range levels {
				if s.Known() {
					break
				}
			}
			for b.Loop() {
				<-levels
			}
			cancel()
			_ = wait() // the end of ctx
		})
		b.Run(fmt.Sprintf("keys/%d", n), func(b *testing.B) {
			for b.Loop() {
				get(clientv3.WithKeysOnly())
			}
		})
		b.Run(fmt.Sprintf("all/%d", n), func(b *testing.B) {
			for b.Loop() {
				get()
			}
		})
	}
}

package zookeeper_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/storetest"
)

// BenchmarkDelivery measures when a Watch delivers a change, and when a bare loop of the client's GetW does, each over a
// connection of its own. ns/op is one write with both deliveries; the custom figures are medians and 99th percentiles of
// the time since the write began, and the ratio of the latter.
func BenchmarkDelivery(b *testing.B) {
	servers := storetest.ZooKeeper(b, 3, nil)
	server := servers.Addrs()[0] // the same for both
	writer := connect(b, servers.Addrs()[1])
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	v := storetest.Put(b, writer, "k", "0", dcs.Version{})

	bare := dial(b, ttl, server)
	awaitSession(b, bare)
	bareAt, oursAt := make(chan time.Time, 1), make(chan time.Time, 1)
	ready, bareReady := make(chan struct{}), make(chan struct{})
	bareDone, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(bareDone)
		last := int32(-1)
		for {
			_, stat, fired, err := bare.GetW(dir + "/k")
			if err != nil {
				return
			}
			switch {
			case last == -1:
				close(bareReady)
			case stat.Version != last:
				bareAt <- time.Now()
			}
			last = stat.Version
			select {
			case <-fired:
			case <-ctx.Done():
				return
			}
		}
	}()
	go func() {
		defer close(done)
		var last dcs.Version
		for snap, err := range connect(b, server).Watch(ctx, dir) {
			if err != nil {
				return
			}
			at := time.Now()
			e, ok := snap.Get(dir + "/k")
			switch {
			case !ok:
			case last == dcs.Version{}:
				last = e.Version
				close(ready)
			case e.Version != last:
				last = e.Version
				oursAt <- at
			}
		}
	}()
	<-ready
	<-bareReady

	storetest.Delivery(b, func() { v = storetest.Put(b, writer, "k", "x", v) }, bareAt, oursAt)
	cancel()
	<-done
	<-bareDone
}

// BenchmarkDirectory measures what a watch of 5,000 keys in 500 directories costs: memory for each key, with its value of
// 100 bytes and what the client keeps for it, and the time until it is known. ns/op is one confirmation, which reads every
// node.
func BenchmarkDirectory(b *testing.B) {
	const keys, below = 5000, 10
	s := connect(b, storetest.ZooKeeper(b, 1, nil).Addrs()...)
	s.Reconfirm = 1 // all the time
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := i; j < keys; j += 16 {
				key := fmt.Sprintf("%s/c%d/k%d", dir, j/below, j%below)
				if _, err := s.Put(b.Context(), key, make([]byte, 100), dcs.Version{}); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	before := inUse()
	begin := time.Now()
	f := storetest.Follow(b, s)
	next := func() {
		at := f.Last.At
		for !f.Last.At.After(at) {
			f.Next()
		}
	}
	next()
	cold := time.Since(begin)
	memory := inUse() - before
	for b.Loop() {
		next()
	}
	b.ReportMetric(float64(cold.Milliseconds()), "cold-ms")
	b.ReportMetric(float64(memory)/keys, "B/key")
}

func inUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

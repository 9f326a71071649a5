package etcd_test

import (
	"context"
	"slices"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/embedded"
)

// BenchmarkDelivery measures how much later than a bare watch of the etcd client a Watch delivers the same change.
// ns/op is one write with both deliveries; the custom figures are medians and the 99th percentile of the lag.
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

	var bares, ours, lags []time.Duration
	var v dcs.Version
	for b.Loop() {
		begin := time.Now()
		v = put(b, s.Store(), "k", "x", v)
		t1, t2 := <-bareAt, <-oursAt
		bares, ours, lags = append(bares, t1.Sub(begin)), append(ours, t2.Sub(begin)), append(lags, t2.Sub(t1))
	}
	at := func(d []time.Duration, percent int) float64 {
		slices.Sort(d)
		return float64(d[(len(d)-1)*percent/100].Nanoseconds()) / 1e3
	}
	b.ReportMetric(at(bares, 50), "bare-µs")
	b.ReportMetric(at(ours, 50), "watch-µs")
	b.ReportMetric(at(lags, 50), "lag-µs")
	b.ReportMetric(at(lags, 99), "lag-p99-µs")
	cancel()
	<-done
}

package storetest

import (
	"slices"
	"testing"
	"time"
)

// Delivery measures how long after the beginning of a write two watches have it, in one run: a bare one of the store's
// client, which is the floor, and the back end's. Each sends the moment of each delivery. Reported are median and 99th
// percentile of both in microseconds, and the ratio of the latter.
func Delivery(b *testing.B, write func(), bareAt, watchAt <-chan time.Time) {
	b.Helper()
	var bare, watch []time.Duration
	for b.Loop() {
		time.Sleep(2 * time.Millisecond) // as writes come, one by one: a client that polls has asked again since the last
		begin := time.Now()
		write()
		bare, watch = append(bare, (<-bareAt).Sub(begin)), append(watch, (<-watchAt).Sub(begin))
	}
	at := func(d []time.Duration, percent int) float64 {
		slices.Sort(d)
		return float64(d[(len(d)-1)*percent/100].Nanoseconds()) / 1e3
	}
	b.ReportMetric(at(bare, 50), "bare-p50-µs")
	b.ReportMetric(at(bare, 99), "bare-p99-µs")
	b.ReportMetric(at(watch, 50), "watch-p50-µs")
	b.ReportMetric(at(watch, 99), "watch-p99-µs")
	b.ReportMetric(at(watch, 99)/at(bare, 99), "p99-ratio")
}

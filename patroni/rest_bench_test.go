//go:build linux

package patroni_test

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/memory"
	"github.com/pgconvoy/pgconvoy/patroni"
)

// BenchmarkRest is what following a proven primary and a replica costs while nothing happens, in this process: its part
// of a core, and what it allocates in a second. The servers are real ones, the store is in memory.
func BenchmarkRest(b *testing.B) {
	pg := newPostgres(b)
	sb := pg.standby()
	b.Cleanup(sb.kill) // before the one that it streams from
	store := memory.New()
	for key, value := range map[string]string{
		"leader":     "n1",
		"members/n1": fmt.Sprintf(`{"conn_url":"postgres://%s/postgres"}`, pg.addr),
		"members/n2": fmt.Sprintf(`{"conn_url":"postgres://%s/postgres"}`, sb.addr),
	} {
		if _, err := store.Put(b.Context(), path+"/"+key, []byte(value), dcs.Version{}); err != nil {
			b.Fatal(err)
		}
	}
	for _, replicas := range []bool{false, true} {
		b.Run(fmt.Sprintf("replicas=%v", replicas), func(b *testing.B) {
			const sources, each = 10, 3 * time.Second
			ctx, cancel := context.WithCancel(b.Context())
			var running, ready sync.WaitGroup
			for range sources {
				source := &patroni.Source{Store: store, Path: path, Prober: &patroni.SQL{Connect: pg.connector()}, Replicas: replicas}
				ready.Add(1)
				running.Go(func() {
					waiting := true
					for l := range source.Watch(ctx) {
						if waiting && l.Phase == patroni.Writable {
							waiting = false
							ready.Done()
						}
					}
				})
			}
			ready.Wait()
			if replicas {
				time.Sleep(13 * time.Second) // until a replica is asked as rarely as it will be
			}
			var cpu, wall time.Duration
			b.ReportAllocs()
			for b.Loop() {
				before, begin := cpuTime(b), time.Now()
				time.Sleep(each)
				cpu += cpuTime(b) - before
				wall += time.Since(begin)
			}
			b.ReportMetric(100*cpu.Seconds()/wall.Seconds()/sources, "%core/source")
			cancel()
			running.Wait()
		})
	}
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

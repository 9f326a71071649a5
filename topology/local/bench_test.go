package local

import (
	"context"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/topology"
)

// BenchmarkSwitchover is what 20 clients see of a planned switchover, beside the time in which no server at all
// accepted a write: the floor, measured past the whole path in the same run.
//
//	go test -run '^$' -bench Switchover -benchtime 10x ./topology/local
func BenchmarkSwitchover(b *testing.B) {
	benchmark(b, func(ctx context.Context, s *Stack) error {
		_, err := s.Do(ctx, topology.Switchover{})
		return err
	})
}

// BenchmarkCrash is the same for kill -9 of the primary's postmaster.
func BenchmarkCrash(b *testing.B) {
	benchmark(b, func(ctx context.Context, s *Stack) error {
		old := s.View(ctx).Leadership.Member
		if err := s.Signal(old+"/postgres", syscall.SIGKILL); err != nil {
			return err
		}
		return s.Await(ctx, func(v topology.View) bool { return v.Leadership.Member != old && v.Routed() })
	})
}

func benchmark(b *testing.B, event func(context.Context, *Stack) error) {
	requirePrograms(b)
	var silences, gaps, over, failed []float64
	lost := 0
	err := Run(b.Context(), topology.Spec{}, func(ctx context.Context, s *Stack) error {
		for b.Loop() {
			r := underLoad(ctx, b, s, func() error { return event(ctx, s) })
			silences = append(silences, ms(r.Silence))
			gaps = append(gaps, ms(r.ServerGap))
			over = append(over, ms(r.Silence-r.ServerGap))
			failed = append(failed, float64(r.Failed))
			lost += r.Lost + r.Surplus
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(0, "ns/op") // the time of a round is mostly that of getting whole again
	for name, values := range map[string][]float64{"silence-ms": silences, "gap-ms": gaps, "over-ms": over, "failed": failed} {
		slices.Sort(values)
		b.ReportMetric(values[len(values)/2], name)
		b.ReportMetric(values[len(values)-1], "max-"+name)
	}
	b.ReportMetric(float64(lost), "lost")
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

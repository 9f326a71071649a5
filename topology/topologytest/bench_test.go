package topologytest_test

import (
	"slices"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/topology"
	"github.com/pgconvoy/pgconvoy/topology/ledger"
	"github.com/pgconvoy/pgconvoy/topology/topologytest"
)

// BenchmarkSwitchover is what 20 clients see of a planned switchover, beside the time in which no server at all
// accepted a write: the floor, measured past the whole path in the same run.
//
//	go test -run '^$' -bench Switchover -benchtime 10x ./topology/topologytest
func BenchmarkSwitchover(b *testing.B) {
	s := topologytest.Start(b, topologytest.Options{Direct: true})
	var silences, gaps, over, failed []float64
	lost := 0
	for b.Loop() {
		s.Await(s.Whole)
		l := s.Write(b, ledger.Load{})
		l.Await(1000)
		if _, err := s.Do(b.Context(), topology.Switchover{}); err != nil {
			b.Fatal(err)
		}
		l.Await(1000)
		r := l.Stop()
		b.Logf("\n%v", r)
		silences = append(silences, ms(r.Silence))
		gaps = append(gaps, ms(r.ServerGap))
		over = append(over, ms(r.Silence-r.ServerGap))
		failed = append(failed, float64(r.Failed))
		lost += r.Lost + r.Surplus
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

package pooler_test

import (
	"context"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/pooler"
)

// BenchmarkRoute moves a held and drained pooler from one server to another, and reports beside it, from the same
// run, what two bare commands (RELOAD and RESUME on an open console) cost.
func BenchmarkRoute(b *testing.B) {
	first, second := servers(b)
	pb := startBouncer(b, pooler.Ini{Databases: []pooler.Entry{db("app", first, nil)}}, nil)
	local := pb.local()
	ctx := context.Background()
	bare, err := pooler.Open(ctx, pb.console())
	must(b, err)
	defer bare.Close()
	targets := []pooler.Target{target("1", second), target("2", first)}
	var commands time.Duration
	n := 0
	for b.Loop() {
		b.StopTimer()
		must(b, local.Hold(ctx))
		begin := time.Now()
		must(b, bare.Exec(ctx, "RELOAD"))
		must(b, bare.Exec(ctx, "RESUME"))
		commands += time.Since(begin)
		must(b, local.Hold(ctx))
		b.StartTimer()
		must(b, local.Route(ctx, targets[n%2]))
		n++
	}
	b.ReportMetric(float64(commands.Microseconds())/float64(n), "bare-µs/op")
}

// BenchmarkHold holds an idle pooler, which is released in between.
func BenchmarkHold(b *testing.B) {
	first, _ := servers(b)
	pb := startBouncer(b, pooler.Ini{Databases: []pooler.Entry{db("app", first, nil)}}, nil)
	local := pb.local()
	ctx := context.Background()
	bare, err := pooler.Open(ctx, pb.console())
	must(b, err)
	defer bare.Close()
	for b.Loop() {
		must(b, local.Hold(ctx))
		b.StopTimer()
		must(b, bare.Exec(ctx, "RESUME"))
		b.StartTimer()
	}
}

// BenchmarkState reads the state of an idle pooler.
func BenchmarkState(b *testing.B) {
	first, _ := servers(b)
	local := startBouncer(b, pooler.Ini{Databases: []pooler.Entry{db("app", first, nil)}}, nil).local()
	for b.Loop() {
		_, err := local.State(context.Background())
		must(b, err)
	}
}

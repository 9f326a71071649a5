package topologytest_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/topology"
	"github.com/pgconvoy/pgconvoy/topology/ledger"
	"github.com/pgconvoy/pgconvoy/topology/topologytest"
)

// The benchmarks of this file show one event to two sets of clients, in one stack at the same time: ours go through
// Envoy and a PgBouncer, the others through HAProxy with Patroni's sample file. Patroni has its defaults (loop_wait 10,
// ttl 30). Each set is 20 writers with a transaction every 25 ms: what two cores can do for both.
//
//	go test -run '^$' -bench Peer -benchtime 20x -timeout 3h ./topology/topologytest
//
// Where the time of a round goes, as reported:
//   - gap: the longest time in which no node took a write (asked every 5 ms);
//   - silence: the longest time without an acknowledgement to any client;
//   - over: from the new primary's first acknowledgement of a write that was sent to it directly (asked every 2 ms) to
//     the first one that a client has. It is below zero where a client was faster.
//   - most: the same from the new primary's last answer as a standby: over is not longer than that.

// BenchmarkPeerCrash is kill -9 of the primary's postmaster.
func BenchmarkPeerCrash(b *testing.B) {
	benchmarkPeers(b, nil, func(s *topologytest.Stack, primary string) topologytest.Undo {
		s.Kill(primary + "/postgres") // its Patroni sees to it
		return func() {}
	})
}

// BenchmarkPeerNodeKilled is kill -9 of all processes of the primary's node: its leader key stays for Patroni's ttl.
func BenchmarkPeerNodeKilled(b *testing.B) {
	benchmarkPeers(b, nil, killNode)
}

// BenchmarkPeerNodeFenced is the same with a fencer that confirms at once: the dead node's claim is ended then. HAProxy's
// clients have the benefit too.
func BenchmarkPeerNodeFenced(b *testing.B) { benchmarkPeers(b, fencing, killNode) }

func killNode(s *topologytest.Stack, primary string) topologytest.Undo { return s.Kill(primary) }

// fencing runs beside a stack until the benchmark ends.
func fencing(b *testing.B, s *topologytest.Stack) {
	b.Helper()
	role := &topology.Fencing{
		Cluster: s.Cluster(), Name: "bench", Fencer: s.Fencer(), Patroni: s.Patroni(),
		After: 100 * time.Millisecond, Every: time.Second, // each round has its own
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.Context()))
	var running sync.WaitGroup
	running.Go(func() {
		if err := role.Run(ctx); ctx.Err() == nil {
			b.Errorf("fencing has ended: %v", err)
		}
	})
	b.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

// benchmarkPeers measures an event, again and again. beside, if any, starts what is to run with the stack.
func benchmarkPeers(
	b *testing.B, beside func(b *testing.B, s *topologytest.Stack), event func(s *topologytest.Stack, primary string) topologytest.Undo,
) {
	s := topologytest.Start(b, topologytest.Options{Direct: true})
	if beside != nil {
		beside(b, s)
	}
	haproxy := startHAProxy(b, s)
	var ours, theirs []seen
	for b.Loop() {
		s.Await(s.Whole)
		o, t := peerRound(b, s, haproxy, event)
		ours = append(ours, o)
		if haproxy != "" {
			theirs = append(theirs, t)
		}
	}
	b.ReportMetric(0, "ns/op") // the time of a round is mostly that of getting whole again
	report(b, "", ours)
	report(b, "haproxy-", theirs)
	b.Log("\n" + table(ours, theirs))
}

// seen is what one set of clients saw in one round.
type seen struct {
	failed, inFlight, wrong int // wrong: lost, surplus, or served by an older primary
	silence, gap            time.Duration
	over, most              time.Duration
}

func peerRound(
	b *testing.B, s *topologytest.Stack, haproxy string, event func(s *topologytest.Stack, primary string) topologytest.Undo,
) (ours, theirs seen) {
	b.Helper()
	const some = 500
	load := ledger.Load{Every: 25 * time.Millisecond}
	primary := s.Leader()
	opened := watchReplicas(b, s, primary)
	l := s.Write(b, load)
	var peer *peerLedger
	if haproxy != "" {
		awaitPrimary(b, haproxy)
		peer = startPeer(b, haproxy, load)
		peer.await(b, some)
	}
	l.Await(some)
	undo := event(s, primary)
	opening := opened()
	l.Await(some)
	if peer != nil {
		peer.await(b, some)
	}
	s.Await(topologytest.Routed)
	r := l.Stop()
	if testing.Verbose() { // else all but the first lines of a benchmark's log are cut off
		b.Logf("%s took over; Envoy and PgBouncer:\n%v", opening.node, r)
	}
	ours = look(r, opening)
	ours.gap = r.ServerGap
	if peer != nil {
		r := peer.stop(b)
		if testing.Verbose() {
			b.Logf("HAProxy:\n%v", r)
		}
		theirs = look(r, opening)
		theirs.gap = ours.gap
	}
	undo()
	return ours, theirs
}

// look is what a report shows of a round.
func look(r ledger.Report, o opening) seen {
	var first time.Time
	for a := range r.Attempts() {
		if a.Outcome == ledger.Acknowledged && a.End.After(o.refused) && (first.IsZero() || a.End.Before(first)) {
			first = a.End
		}
	}
	return seen{
		failed: r.Failed, inFlight: r.InFlight, wrong: r.Lost + r.Surplus + r.Back + r.Stale,
		silence: r.Silence, over: first.Sub(o.accepted), most: first.Sub(o.refused),
	}
}

// peerLedger is a ledger beside the stack's own, which knows nothing of its faults.
type peerLedger struct {
	*ledger.Ledger
	end func() (ledger.Report, error)
}

func startPeer(b *testing.B, dsn string, load ledger.Load) *peerLedger {
	b.Helper()
	l, err := ledger.Start(b.Context(), dsn, load)
	if err != nil {
		b.Fatal(err)
	}
	p := &peerLedger{l, sync.OnceValues(func() (ledger.Report, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(b.Context()), 2*time.Minute)
		defer cancel()
		return l.Stop(ctx)
	})}
	b.Cleanup(func() { _, _ = p.end() }) // who did not ask for the report does not want it
	return p
}

// await waits for n more acknowledgements.
func (p *peerLedger) await(b *testing.B, n int) {
	b.Helper()
	end := time.Now().Add(2 * time.Minute)
	for want := p.Now().Acknowledged + n; p.Now().Acknowledged < want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			b.Fatalf("HAProxy's clients wait in vain for %d acknowledgements: %+v", n, p.Now())
		}
	}
}

func (p *peerLedger) stop(b *testing.B) ledger.Report {
	b.Helper()
	r, err := p.end()
	if err != nil {
		b.Fatalf("HAProxy's clients: %v\n%v", err, r)
	}
	return r
}

// figure is one column of the table.
type figure struct {
	name string
	of   func(s seen) float64
}

var figures = []figure{
	{"failed", func(s seen) float64 { return float64(s.failed) }},
	{"in-flight", func(s seen) float64 { return float64(s.inFlight) }},
	{"silence-ms", func(s seen) float64 { return ms(s.silence) }},
	{"gap-ms", func(s seen) float64 { return ms(s.gap) }},
	{"silence/gap", func(s seen) float64 { return ms(s.silence) / max(ms(s.gap), 0.001) }},
	{"over-ms", func(s seen) float64 { return ms(s.over) }},
	{"most-ms", func(s seen) float64 { return ms(s.most) }},
	{"wrong", func(s seen) float64 { return float64(s.wrong) }},
}

// values are those of all rounds, sorted.
func (f figure) values(rounds []seen) []float64 {
	v := make([]float64, len(rounds))
	for i, s := range rounds {
		v[i] = f.of(s)
	}
	slices.Sort(v)
	return v
}

// at is the nearest-rank percentile of sorted values.
func at(v []float64, percent int) float64 { return v[max((len(v)*percent+99)/100-1, 0)] }

// report gives the medians and the worst of some rounds.
func report(b *testing.B, prefix string, rounds []seen) {
	if len(rounds) == 0 {
		return
	}
	for _, f := range figures {
		v := f.values(rounds)
		if f.name == "gap-ms" && prefix != "" {
			continue // the server's, the same for all clients
		}
		b.ReportMetric(at(v, 50), prefix+f.name)
		b.ReportMetric(at(v, 100), prefix+"max-"+f.name)
	}
}

// table has median, 99th percentile and worst of what both sets of clients saw.
func table(ours, theirs []seen) string {
	var t strings.Builder
	fmt.Fprintf(&t, "%-24s", fmt.Sprintf("%d rounds", len(ours)))
	for _, f := range figures {
		fmt.Fprintf(&t, "%13s", f.name)
	}
	for _, set := range []struct {
		name   string
		rounds []seen
	}{{"Envoy, PgBouncer", ours}, {"HAProxy", theirs}} {
		if len(set.rounds) == 0 {
			continue
		}
		for _, percent := range []int{50, 99, 100} {
			fmt.Fprintf(&t, "\n%-18s%6s", set.name, map[int]string{50: "p50", 99: "p99", 100: "max"}[percent])
			for _, f := range figures {
				fmt.Fprintf(&t, "%13.1f", at(f.values(set.rounds), percent))
			}
		}
	}
	return t.String()
}

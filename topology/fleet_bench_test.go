package topology_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/topology"
)

// BenchmarkAgents runs a hundred agents in this process, each with a connection of its own to one real store that is a
// process of its own, on poolers and servers that are fakes. Patroni's heartbeats are written as three nodes would.
//
// At rest: what they ask of the store, and what they cost here. Then leader changes: from the moment when the leader
// key is written until each agent has routed. The floor is what as many bare watches of the store's own client need for
// the same key over the same connections, in the same run, before there are agents.
//
//	go test -run '^$' -bench Agents -benchtime 1x ./topology
func BenchmarkAgents(b *testing.B) {
	for _, k := range []struct {
		name  string
		start func(b *testing.B) fleetStore
	}{{"etcd", fleetEtcd}, {"consul", fleetConsul}, {"zookeeper", fleetZooKeeper}} {
		b.Run(k.name, func(b *testing.B) {
			s := k.start(b)
			for b.Loop() {
				benchmarkFleet(b, s)
			}
		})
	}
}

const (
	fleetAgents  = 100
	fleetPath    = "/service/demo"
	fleetRest    = 22 * time.Second // two confirmations and some
	fleetChanges = 10
	fleetWithin  = time.Minute
)

// fleetStore makes connections to a store.
type fleetStore func(b *testing.B, m *meter) fleetConn

// fleetConn is one connection, as an agent has it.
type fleetConn struct {
	store dcs.Store
	// watch tells each time that a key has been made, until ctx ends, by the means of the store's client alone. It calls
	// ready when it would see that.
	watch func(ctx context.Context, key string, ready, seen func()) error
}

// await returns when the store has answered.
func (c fleetConn) await(b *testing.B) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), fleetWithin)
	defer cancel()
	for {
		_, err := c.store.Get(ctx, fleetPath)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			b.Fatal(err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func benchmarkFleet(b *testing.B, connect fleetStore) {
	var m meter
	before := usageNow()
	conns := make([]fleetConn, fleetAgents)
	for i := range conns {
		conns[i] = connect(b, &m)
		conns[i].await(b)
	}
	p := newFleetPatroni(b, connect(b, new(meter)).store) // its requests are not the agents'
	bare := bareWatches(b, conns, p)
	connected := usageNow()

	agents := startFleet(b, conns, p)
	running := usageNow()
	requests, sent, received := m.counts()
	began, cpu := time.Now(), cpuTime(b)
	time.Sleep(fleetRest) // what happens in this time is the figure
	took := time.Since(began).Seconds()
	cores := (cpuTime(b) - cpu).Seconds() / took
	requestsNow, sentNow, receivedNow := m.counts()
	perSecond := func(now, before int64) float64 { return float64(now-before) / took }
	rate := perSecond(requestsNow, requests)
	out, in := perSecond(sentNow, sent), perSecond(receivedNow, received)

	var routed []time.Duration
	for range fleetChanges {
		p.lose(b)
		for _, a := range agents.poolers {
			a.await(b, netip.AddrPort{}) // held
		}
		at := p.elect(b)
		for _, a := range agents.poolers {
			routed = append(routed, a.await(b, p.servers.primary()).Sub(at))
		}
	}
	agents.end(b)
	p.end(b)

	ms := func(d []time.Duration, percent int) float64 {
		slices.Sort(d)
		return float64(d[(len(d)-1)*percent/100].Microseconds()) / 1e3
	}
	each := func(u, v usage) (heap float64, goroutines float64) {
		return float64(v.heap-u.heap) / fleetAgents / 1e3, float64(v.goroutines-u.goroutines) / fleetAgents
	}
	clientHeap, clientGoroutines := each(before, connected)
	heap, goroutines := each(connected, running)
	b.Logf("%d agents\n"+
		"at rest, of the store       %8.1f requests/s   %8.2f for each agent (%.1f kB/s out, %.1f kB/s in)\n"+
		"at rest, here               %8.3f cores        %8.3f %% of one for each agent\n"+
		"heap, for each              %8.1f kB           %8.1f kB for its client\n"+
		"goroutines, for each        %8.1f              %8.1f for its client\n"+
		"change of the leader, ms    %8.2f p50 %8.2f p99 %8.2f max: all have routed\n"+
		"as many bare watches, ms    %8.2f p50 %8.2f p99 %8.2f max",
		fleetAgents, rate, rate/fleetAgents, out/1e3, in/1e3, cores, cores*100/fleetAgents,
		heap, clientHeap, goroutines, clientGoroutines,
		ms(routed, 50), ms(routed, 99), ms(routed, 100), ms(bare, 50), ms(bare, 99), ms(bare, 100))
	if rate/fleetAgents > 2 { // holds on any machine
		b.Errorf("an agent at rest sends %.2f requests/s", rate/fleetAgents)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(rate, "requests/s")
	b.ReportMetric((out+in)/1e3, "kB/s")
	b.ReportMetric(cores*100/fleetAgents, "%core/agent")
	b.ReportMetric(heap+clientHeap, "heap-kB/agent")
	b.ReportMetric(goroutines+clientGoroutines, "goroutines/agent")
	b.ReportMetric(ms(routed, 50), "routed-p50-ms")
	b.ReportMetric(ms(routed, 99), "routed-p99-ms")
	b.ReportMetric(ms(bare, 50), "bare-p50-ms")
	b.ReportMetric(ms(bare, 99), "bare-p99-ms")
}

// bareWatches measures the floor of a leader change.
func bareWatches(b *testing.B, conns []fleetConn, p *fleetPatroni) []time.Duration {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	var watching, ready sync.WaitGroup
	seen := make(chan time.Time, len(conns)*fleetChanges)
	for _, c := range conns {
		ready.Add(1)
		watching.Go(func() {
			err := c.watch(ctx, path.Join(fleetPath, "leader"), sync.OnceFunc(ready.Done), func() { seen <- time.Now() })
			if ctx.Err() == nil {
				b.Errorf("a bare watch has ended: %v", err)
			}
		})
	}
	ready.Wait()
	var took []time.Duration
	for range fleetChanges {
		p.lose(b)
		at := p.elect(b)
		for range conns {
			select {
			case t := <-seen:
				took = append(took, t.Sub(at))
			case <-time.After(fleetWithin):
				b.Fatal("a bare watch has not seen a change")
			}
		}
	}
	cancel()
	watching.Wait()
	return took
}

// fleet is the agents that run.
type fleet struct {
	poolers []*fleetPooler
	cancel  context.CancelCauseFunc
	running sync.WaitGroup
}

var errFleetOver = errors.New("the benchmark is over")

// startFleet returns when all agents are routed and have said so in the store.
func startFleet(b *testing.B, conns []fleetConn, p *fleetPatroni) *fleet {
	b.Helper()
	f := &fleet{}
	ctx, cancel := context.WithCancelCause(b.Context())
	f.cancel = cancel
	b.Cleanup(func() {
		cancel(errFleetOver)
		f.running.Wait()
	})
	for i, c := range conns {
		fp := &fleetPooler{change: make(chan struct{})}
		f.poolers = append(f.poolers, fp)
		a := &topology.Agent{
			Cluster: topology.Cluster{Path: fleetPath, Store: c.store, Prober: &p.servers},
			Name:    fmt.Sprintf("pgb-%03d", i), Listen: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 6432),
			Pooler: fp,
		}
		f.running.Go(func() {
			if err := a.Run(ctx); ctx.Err() == nil {
				b.Errorf("agent %s: %v", a.Name, err)
			}
		})
	}
	for _, fp := range f.poolers {
		fp.await(b, p.servers.primary())
	}
	o := &topology.Observer{Path: fleetPath, Store: p.store}
	for end := time.Now().Add(fleetWithin); ; time.Sleep(100 * time.Millisecond) {
		n := 0
		for _, pv := range o.View(b.Context()).Poolers {
			if pv.State == topology.Routed {
				n++
			}
		}
		if n == len(conns) {
			return f
		}
		if time.Now().After(end) {
			b.Fatalf("%d of %d agents have said that they are routed", n, len(conns))
		}
	}
}

func (f *fleet) end(b *testing.B) {
	b.Helper()
	f.cancel(errFleetOver)
	f.running.Wait()
}

package topologytest_test

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/topology"
	"github.com/pgconvoy/pgconvoy/topology/ledger"
	"github.com/pgconvoy/pgconvoy/topology/topologytest"
)

// trial is one fault under load: what is done, and what it may cost.
type trial struct {
	name string
	cost cost
	do   func(t *testing.T, s *topologytest.Stack) // does it, waits for what it leads to, and ends it

	short string // the stores of `make test`; the long form has all
	only  string // the stores that can have it; empty: all
	moves bool   // the leadership changes for certain
	lossy bool   // an agent may be killed before it has written down what it did

	after func(t *testing.T, r ledger.Report) // what else must hold; nil: nothing
}

// long is the form that takes hours: `make chaos`.
func long() bool { return os.Getenv("PGCONVOY_CHAOS") == "1" }

// hold is for how long a fault stays, in the two forms.
func hold(short, chaos time.Duration) time.Duration {
	if long() {
		return chaos
	}
	return short
}

// runs reports whether a trial is part of this form's matrix on a store.
func (tr trial) runs(store string) bool {
	switch {
	case tr.only != "" && !strings.Contains(tr.only, store):
		return false
	case long():
		return true
	}
	return strings.Contains(tr.short, store)
}

// trials are the whole matrix, in the order in which it runs.
func trials() (all []trial) {
	for _, some := range [][]trial{databaseTrials, fleetTrials, linkTrials, storeTrials, staticTrials} {
		all = append(all, some...)
	}
	return all
}

// TestMatrix does every fault under load, on each store, and proves after each that no law was broken.
func TestMatrix(t *testing.T) {
	var rows []string
	for _, store := range storesToTry(t) {
		t.Run(store, func(t *testing.T) {
			stack := stackOn(t, store)
			if store != "etcd" {
				t.Run("the kit", func(t *testing.T) { otherStore(t, stack.Start(t), store) })
			}
			for _, tr := range trials() {
				if tr.runs(store) {
					t.Run(tr.name, func(t *testing.T) { rows = append(rows, store+" "+tr.run(t, stack.Start(t))) })
				}
			}
		})
	}
	t.Logf("%d trials; `to routed` is from the end of the fault\n%-10s %-58s %-9s %8s %9s %9s %9s %9s\n%s",
		len(rows), "", "fault", "cost", "failed", "in flight", "silence", "gap", "to routed", strings.Join(rows, "\n"))
}

// storesToTry are the stores of the matrix: $CHAOS_STORES of the long form, in words; else all.
func storesToTry(t *testing.T) []string {
	t.Helper()
	stores := strings.Fields(strings.ReplaceAll(cmp.Or(os.Getenv("CHAOS_STORES"), "etcd consul zookeeper"), ",", " "))
	for _, store := range stores {
		if !strings.Contains(" etcd consul zookeeper ", " "+store+" ") {
			t.Fatalf("CHAOS_STORES has %q, which is none of etcd, consul, zookeeper", store)
		}
	}
	return stores
}

// stackOn is one stack for all trials on a store. On etcd it is that of the other tests too.
func stackOn(t *testing.T, store string) *topologytest.Shared {
	t.Helper()
	if store == "etcd" {
		return &shared
	}
	o := shared.Options
	o.DCS = store
	if !long() { // a start costs less with fewer of them
		o.Spec.Nodes, o.Spec.Poolers = topology.NodesNamed(2), topology.PoolersNamed(2, 0)
	}
	stack := &topologytest.Shared{Options: o}
	t.Cleanup(func() { stack.End(t) })
	return stack
}

// run does one trial on a stack that is whole, and returns its row of the table.
func (tr trial) run(t *testing.T, s *topologytest.Stack) string {
	t.Helper()
	e := &evidence{services: map[string]string{}}
	for _, p := range s.Spec().Poolers {
		service := topology.Write
		if p.Read {
			service = topology.Read
		}
		e.services[p.Name] = service.String()
	}
	follow := leaderships(t, s)
	e.report = underLoad(t, s, func() {
		e.began = time.Now()
		tr.do(t, s)
		ended := time.Now()
		s.Await(topologytest.Routed)
		e.recovery = time.Since(ended)
		t.Logf("routed %v after the end of the fault", e.recovery.Round(time.Millisecond))
	})
	if e.epochs = follow(); tr.moves && e.epochs[0] == e.epochs[len(e.epochs)-1] {
		t.Errorf("the leadership is %v as before: the fault was none", e.epochs[0])
	}
	s.Await(s.Whole)
	var missing string
	if e.histories, missing = histories(t, s, e.began); missing != "" && !tr.lossy {
		t.Error(missing)
	}
	for name := range e.services {
		if paused(t, s, name) {
			e.paused = append(e.paused, name)
		}
	}
	for _, v := range violations(e, tr.cost) {
		t.Error(v)
	}
	if tr.after != nil {
		tr.after(t, e.report)
	}
	r := e.report
	return fmt.Sprintf("%-58s %-9s %8d %9d %9v %9v %9v", tr.name, tr.cost, r.Failed, r.InFlight,
		r.Silence.Round(time.Millisecond), r.ServerGap.Round(time.Millisecond), e.recovery.Round(time.Millisecond))
}

// leaderships follows who is proven, from now until the result is called: the epochs, in order.
func leaderships(t *testing.T, s *topologytest.Stack) func() []patroni.Epoch {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan struct{})
	var epochs []patroni.Epoch
	var wg sync.WaitGroup
	wg.Go(func() {
		for v, err := range s.Observer().Watch(ctx) {
			if err != nil {
				return
			}
			l := v.Leadership
			if l.Phase != patroni.Writable.String() || len(epochs) > 0 && epochs[len(epochs)-1] == l.Epoch {
				continue
			}
			if epochs = append(epochs, l.Epoch); len(epochs) == 1 {
				close(first)
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	select {
	case <-first:
	case <-time.After(time.Minute):
		t.Fatal("no leadership is proven before the fault")
	}
	return func() []patroni.Epoch {
		cancel()
		wg.Wait()
		return epochs
	}
}

// histories are the poolers' own records. They are written beside, and not while the store is away, so all moves that
// the agents' logs have are waited for; missing says what did not come.
func histories(t *testing.T, s *topologytest.Stack, since time.Time) (all map[string]record.History, missing string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		all, missing = readHistories(t, s), ""
		for _, p := range s.Spec().Poolers {
			moves := all[p.Name].Moves
			i := slices.IndexFunc(moves, func(m record.Move) bool { return !m.At.Before(since) })
			if i < 0 {
				i = len(moves)
			}
			if did := logged(t, s, p.Name, since); len(moves) == 0 || len(moves)-i < min(did, record.Moves) {
				missing = fmt.Sprintf("the history of %s has %d of %d moves since %v", p.Name, len(moves)-i, did, since)
			}
		}
		if missing == "" || time.Now().After(deadline) {
			return all, missing
		}
	}
}

func readHistories(t *testing.T, s *topologytest.Stack) map[string]record.History {
	t.Helper()
	ctx, cancel := contextFor(t, 10*time.Second)
	defer cancel()
	snap, err := s.Store().Get(ctx, record.HistoriesDir(s.Spec().Path))
	if err != nil {
		t.Fatal(err)
	}
	all, err := record.HistoriesOf(snap, s.Spec().Path)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// logged is how often an agent has moved its pooler, by its log.
func logged(t *testing.T, s *topologytest.Stack, pooler string, since time.Time) (n int) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.Logs(), pooler+"-agent.log"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		word, rest, _ := strings.Cut(strings.TrimPrefix(line, "time="), " ")
		if at, err := time.Parse(time.RFC3339, word); err == nil && at.After(since) && strings.Contains(rest, "msg=move ") {
			n++
		}
	}
	return n
}

// paused asks a PgBouncer itself.
func paused(t *testing.T, s *topologytest.Stack, pooler string) bool {
	t.Helper()
	for _, row := range console(t, s, pooler, "SHOW DATABASES") {
		if row["name"] != "pgbouncer" && row["paused"] == "1" {
			return true
		}
	}
	for _, row := range console(t, s, pooler, "SHOW STATE") {
		if row["key"] == "paused" && row["value"] == "yes" {
			return true
		}
	}
	return false
}

// console asks a pooler's console and returns the rows by the names of their columns.
func console(t *testing.T, s *topologytest.Stack, pooler, command string) []map[string]string {
	t.Helper()
	ctx, cancel := contextFor(t, 10*time.Second)
	defer cancel()
	conn, err := pgconn.Connect(ctx, s.AdminDSN(pooler))
	if err != nil {
		t.Fatalf("the console of %s: %v", pooler, err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	results, err := conn.Exec(ctx, command).ReadAll()
	if err != nil || len(results) != 1 {
		t.Fatalf("%s: %s: %v", pooler, command, err)
	}
	var rows []map[string]string
	for _, values := range results[0].Rows {
		row := map[string]string{}
		for i, f := range results[0].FieldDescriptions {
			row[f.Name] = string(values[i])
		}
		rows = append(rows, row)
	}
	return rows
}

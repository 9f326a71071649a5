package topologytest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/topology"
	"github.com/pgconvoy/pgconvoy/topology/ledger"
)

// marker is a ledger that wants to know what happens to the stack.
type marker interface {
	Mark(name string) time.Time
	Note(name string) time.Time
}

// mark tells the ledgers of a fault.
func (u *running) mark(name string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for m := range u.marks {
		m.Mark(name)
	}
}

// note tells them of what follows from one.
func (u *running) note(name string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for m := range u.marks {
		m.Note(name)
	}
}

// Writers are clients of a stack that account for every transaction.
type Writers struct {
	*ledger.Ledger
	t    testing.TB
	stop func() (ledger.Report, error)
}

// Write starts clients that write, and read where load says so, through the stack: reads by the read service, where the
// stack has one. How long no node at all takes a write is measured beside. Faults and what follows from them are marked in the report. The clients end with Stop, or with the test.
func (s *Stack) Write(t testing.TB, load ledger.Load) *Writers {
	t.Helper()
	for _, n := range s.Spec().Nodes {
		load.Direct = append(load.Direct, s.DirectDSN(n.Name))
	}
	reads := slices.ContainsFunc(s.Spec().Poolers, func(p topology.PgBouncer) bool { return p.Read })
	if load.Read == "" && reads {
		load.Read = s.ReadDSN()
	}
	ctx, cancel := context.WithTimeout(t.Context(), s.o.limit())
	defer cancel()
	l, err := ledger.Start(ctx, s.WriteDSN(), load)
	if err != nil {
		t.Fatalf("topologytest: %v", err)
	}
	s.mu.Lock()
	s.marks[l] = true
	s.mu.Unlock()
	end := s.follow(l)
	w := &Writers{Ledger: l, t: t}
	w.stop = sync.OnceValues(func() (ledger.Report, error) {
		s.mu.Lock()
		delete(s.marks, l)
		s.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.o.limit())
		defer cancel()
		defer end()
		return l.Stop(ctx)
	})
	t.Cleanup(func() { _, _ = w.stop() }) // who did not ask for the report does not want it
	return w
}

// Stop ends the clients, reads every row back and returns the report. It fails the test when the rows cannot be read,
// for what is not checked proves nothing. A later call returns the same.
func (w *Writers) Stop() ledger.Report {
	w.t.Helper()
	r, err := w.stop()
	if err != nil {
		w.t.Fatalf("topologytest: %v\n%v", err, r)
	}
	return r
}

// Await returns when n more transactions are acknowledged. It fails the test when that takes longer than two minutes.
func (w *Writers) Await(n int) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*time.Minute)
	defer cancel()
	for want := w.Now().Acknowledged + n; w.Now().Acknowledged < want; {
		select {
		case <-ctx.Done():
			w.t.Fatalf("topologytest: waited in vain for %d more acknowledged transactions: %+v", n, w.Now())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// follow notes what changes in the stack. The result ends it.
func (s *Stack) follow(m marker) (end func()) {
	ctx, cancel := context.WithCancel(s.ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		var last topology.View
		for v, err := range s.Observer().Watch(ctx) {
			if err != nil {
				return
			}
			writable := v.Leadership.Phase == patroni.Writable.String()
			if last.At.IsZero() && !(known(v) && writable) {
				continue // this watch still proves what has long been so
			}
			if !last.At.IsZero() {
				for _, change := range changes(last, v) {
					m.Note(change)
				}
			}
			last = v
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

// changes are those from one view to the next that a person wants to see beside what the clients saw.
func changes(old, now topology.View) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	a, b := old.Leadership, now.Leadership
	writable := patroni.Writable.String()
	switch {
	case b.Phase == writable && (a.Phase != writable || a.Member != b.Member):
		say("%s writable, timeline %d", b.Member, b.Epoch.Timeline)
	case a.Phase == writable && b.Phase != writable:
		say("%s not proven", a.Member)
	case a.Member != b.Member && b.Member != "":
		say("%s has the key", b.Member)
	}
	states := func(v topology.View) map[topology.PoolerState]int {
		n := map[topology.PoolerState]int{}
		for _, p := range v.Poolers {
			if p.Service == topology.Write.String() {
				n[p.State]++
			}
		}
		return n
	}
	was, is := states(old), states(now)
	for _, st := range slices.Sorted(maps.Keys(is)) {
		if is[st] > was[st] && st != "" {
			say("%d %s", is[st], st)
		}
	}
	return out
}

package main

import (
	"context"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/topology"
	"github.com/pgconvoy/pgconvoy/topology/topologytest"
)

var shared topologytest.Shared

func TestMain(m *testing.M) { os.Exit(shared.Main(m)) }

// TestSwitchover: the file follows a planned change.
func TestSwitchover(t *testing.T) {
	s := shared.Start(t)
	w := start(t, s)
	first := s.Leader()
	w.await(t, func(_ patroni.Leadership, p Primary) bool { return p.Member == first })
	report, err := s.Do(t.Context(), topology.Switchover{})
	if err != nil {
		t.Fatal(err)
	}
	w.await(t, func(_ patroni.Leadership, p Primary) bool { return p.Member == report.To })
}

// TestCrash: the primary dies, and its successor gets the leader key long before it is a primary.
func TestCrash(t *testing.T) {
	s := shared.Start(t)
	w := start(t, s)
	old := s.Leader()
	w.await(t, func(_ patroni.Leadership, p Primary) bool { return p.Member == old })
	var promote []topologytest.Undo
	for _, n := range s.Spec().Nodes {
		if n.Name != old {
			promote = append(promote, s.HangPromote(n.Name))
		}
	}
	s.Kill(s.Primary())
	next := w.await(t, func(l patroni.Leadership, _ Primary) bool {
		return l.Phase == patroni.Promoting && l.Member != old
	})
	if next.Primary.Member != old {
		t.Errorf("%s has the key and is not promoted, and the file names %s", next.level.Member, next.Primary.Member)
	}
	for _, undo := range promote {
		undo()
	}
	w.await(t, func(_ patroni.Leadership, p Primary) bool { return p.Member == next.level.Member })
}

// TestRun: the program finds its way from the flags to the file.
func TestRun(t *testing.T) {
	s := shared.Start(t)
	file := filepath.Join(t.TempDir(), "primary.json")
	leader := s.Leader()
	ended := background(t, func(ctx context.Context) error {
		return run(ctx, s.DCS().Endpoints, s.Spec().Path, s.SuperuserDSN(leader), file)
	})
	deadline := time.After(time.Minute)
	for content(t, file).Member != leader {
		select {
		case err := <-ended:
			t.Fatalf("the controller has ended: %v", err)
		case <-deadline:
			t.Fatalf("the file names %q, want %q", content(t, file).Member, leader)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// background runs a program until the test ends.
func background(t *testing.T, program func(ctx context.Context) error) (ended <-chan error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		err := program(ctx)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the controller ended with %v", err)
		}
		c <- err
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return c
}

// start runs a controller until the test ends.
func start(t *testing.T, s *topologytest.Stack) *witness {
	t.Helper()
	w := &witness{
		LeaderSource: s.Observer().Leaders, t: t, dsn: map[string]string{},
		file: filepath.Join(t.TempDir(), "primary.json"), news: make(chan news, 1),
	}
	for _, n := range s.Spec().Nodes {
		w.dsn[n.Name] = s.DirectDSN(n.Name)
	}
	background(t, (&Controller{Leaders: w, File: w.file}).Run)
	return w
}

// witness stands between the controller and its source, and looks at the file after each level.
type witness struct {
	topology.LeaderSource
	t    *testing.T
	dsn  map[string]string // straight to each node
	file string
	seen Primary
	news chan news // the newest
}

// news is a level, and what the file said when the controller had digested it.
type news struct {
	level patroni.Leadership
	Primary
}

// Watch implements [topology.LeaderSource].
func (w *witness) Watch(ctx context.Context) iter.Seq2[patroni.Leadership, error] {
	return func(yield func(patroni.Leadership, error) bool) {
		for l, err := range w.LeaderSource.Watch(ctx) {
			if !yield(l, err) {
				return
			}
			w.look(ctx, l)
		}
	}
}

func (w *witness) look(ctx context.Context, l patroni.Leadership) {
	p := content(w.t, w.file)
	if p != w.seen {
		w.t.Logf("the file names %s, epoch %v", p.Member, p.Epoch)
		w.ask(ctx, p.Member)
		w.seen = p
	}
	select {
	case <-w.news:
	default:
	}
	w.news <- news{l, p}
}

// ask asks a server that was just named whether it is a primary.
func (w *witness) ask(ctx context.Context, member string) {
	var recovery bool
	conn, err := pgx.Connect(ctx, w.dsn[member])
	if err == nil {
		err = conn.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&recovery)
		_ = conn.Close(ctx) // nothing is lost with it
	}
	if ctx.Err() == nil && (err != nil || recovery) {
		w.t.Errorf("%s was named: in recovery %v, %v", member, recovery, err)
	}
}

// await returns the first news that satisfy done.
func (w *witness) await(t *testing.T, done func(l patroni.Leadership, p Primary) bool) news {
	t.Helper()
	var last news
	deadline := time.After(time.Minute)
	for {
		select {
		case last = <-w.news:
			if done(last.level, last.Primary) {
				return last
			}
		case <-deadline:
			t.Fatalf("waited in vain; the last news: %s is %v (%s), the file names %q",
				last.level.Member, last.level.Phase, last.level.Reason, last.Member)
		}
	}
}

package patroni_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/memory"
	"github.com/pgconvoy/pgconvoy/patroni"
)

const (
	path     = "/service/demo"
	systemID = "7268616322854375442"
)

var (
	errDown = errors.New("no quorum")
	errLost = errors.New("connection refused")
	n1      = netip.MustParseAddrPort("10.0.0.1:5432")
	n2      = netip.MustParseAddrPort("10.0.0.2:5432")
	n3      = netip.MustParseAddrPort("10.0.0.3:5432")
)

func primary(timeline uint32) patroni.Proof {
	return patroni.Proof{Writable: true, Timeline: timeline, SystemID: systemID}
}

func replica(timeline uint32) patroni.Proof {
	return patroni.Proof{Timeline: timeline, SystemID: systemID}
}

func lost() patroni.Proof { return patroni.Proof{Err: errLost} }

// servers is a Prober for servers that are what set says. An answer takes a millisecond; a change is an answer at
// once, otherwise one comes each rest.
type servers struct {
	rest    time.Duration
	limit   int64 // how many Probes may run; further ones are refused; 0: any number
	running atomic.Int64
	begun   atomic.Int64

	mu      sync.Mutex
	state   map[netip.AddrPort]patroni.Proof
	changed chan struct{}
}

func newServers() *servers {
	return &servers{rest: 250 * time.Millisecond, state: map[netip.AddrPort]patroni.Proof{}, changed: make(chan struct{})}
}

func (s *servers) set(addr netip.AddrPort, p patroni.Proof) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state[addr] = p
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *servers) get(addr netip.AddrPort) (patroni.Proof, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.state[addr]
	if !ok {
		p = lost()
	}
	return p, s.changed
}

func (s *servers) Probe(ctx context.Context, addr netip.AddrPort) iter.Seq[patroni.Proof] {
	return func(yield func(patroni.Proof) bool) {
		s.begun.Add(1)
		n := s.running.Add(1)
		defer s.running.Add(-1)
		for ctx.Err() == nil {
			p, changed := s.get(addr)
			if s.limit > 0 && n > s.limit {
				p = lost()
			}
			if p.Err == nil {
				time.Sleep(500 * time.Microsecond)
			}
			p.At = time.Now()
			if p.Err == nil {
				time.Sleep(500 * time.Microsecond)
			}
			if ctx.Err() != nil || !yield(p) {
				return
			}
			select {
			case <-ctx.Done():
			case <-changed:
			case <-time.After(s.rest):
			}
		}
	}
}

// gated is a store whose reads can be looked at, and kept waiting.
type gated struct {
	*memory.Store
	reads atomic.Int64
	get   func(n int64) // before the nth read
}

func (g *gated) Get(ctx context.Context, dir string) (dcs.Snapshot, error) {
	n := g.reads.Add(1)
	if g.get != nil {
		g.get(n)
	}
	return g.Store.Get(ctx, dir)
}

// scene is a cluster in a bubble, and what a Source says of it.
type scene struct {
	*testing.T
	store  *gated
	ask    *servers
	source *patroni.Source

	mu   sync.Mutex
	seen []patroni.Leadership
}

// stage prepares n1 as the primary and n2 as its replica, runs play in a bubble, and checks that nothing is left.
func stage(t *testing.T, play func(s *scene)) {
	t.Helper()
	noGoroutines(t)
	synctest.Test(t, func(t *testing.T) {
		s := &scene{T: t, store: &gated{Store: memory.New()}, ask: newServers()}
		s.source = &patroni.Source{Store: s.store, Path: path, Prober: s.ask}
		s.put("initialize", systemID)
		s.put("leader", "n1")
		s.member("n1", n1)
		s.member("n2", n2)
		s.ask.set(n1, primary(3))
		s.ask.set(n2, replica(3))
		play(s)
		synctest.Wait()
		if n := s.ask.running.Load(); n != 0 {
			t.Errorf("%d probes are left", n)
		}
	})
}

func (s *scene) key(name string) (string, dcs.Version) {
	s.Helper()
	snap, err := s.store.Store.Get(context.Background(), path)
	if err != nil {
		s.Fatal(err)
	}
	e, _ := snap.Get(path + "/" + name)
	return e.Key, e.Version
}

func (s *scene) put(name, value string) dcs.Version {
	s.Helper()
	_, prev := s.key(name)
	v, err := s.store.Put(context.Background(), path+"/"+name, []byte(value), prev)
	if err != nil {
		s.Fatal(err)
	}
	return v
}

func (s *scene) remove(name string) {
	s.Helper()
	key, prev := s.key(name)
	if err := s.store.Delete(context.Background(), key, prev); err != nil {
		s.Fatal(err)
	}
}

func (s *scene) member(name string, addr netip.AddrPort, fields ...string) {
	s.Helper()
	s.put("members/"+name, fmt.Sprintf(`{"conn_url":"postgres://%s/postgres","api_url":"http://%s:8008/patroni","state":"running"%s}`,
		addr, addr.Addr(), strings.Join(fields, "")))
}

// watch follows the source until the play is over; levels are kept.
func (s *scene) watch() (stop func()) {
	ctx, cancel := context.WithCancel(s.Context())
	var done sync.WaitGroup
	done.Go(func() {
		for l, err := range s.source.Watch(ctx) {
			if err != nil {
				if !errors.Is(err, context.Canceled) {
					s.Errorf("the watch ended with %v", err)
				}
				return
			}
			s.mu.Lock()
			s.seen = append(s.seen, l)
			s.mu.Unlock()
		}
	})
	return func() {
		cancel()
		done.Wait()
	}
}

// now is the present level, at this moment of the bubble.
func (s *scene) now() patroni.Leadership {
	s.Helper()
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.seen) == 0 {
		s.Fatal("no level yet")
	}
	return s.seen[len(s.seen)-1]
}

// levels returns what was seen so far and forgets it.
func (s *scene) levels() []patroni.Leadership {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := s.seen
	s.seen = nil
	return seen
}

// after lets time pass and wants a phase.
func (s *scene) after(d time.Duration, want patroni.Phase) patroni.Leadership {
	s.Helper()
	time.Sleep(d)
	l := s.now()
	if l.Phase != want {
		s.Fatalf("after %v: %v (%s), want %v", d, l.Phase, l.Reason, want)
	}
	return l
}

// noGoroutines fails the test if goroutines that it starts are left when it ends.
func noGoroutines(t testing.TB) {
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		deadline := time.Now().Add(5 * time.Second)
		for runtime.NumGoroutine() > before {
			if time.Now().After(deadline) {
				buf := make([]byte, 1<<18)
				t.Errorf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
				return
			}
			runtime.Gosched()
		}
	})
}

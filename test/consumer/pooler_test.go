package consumer_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/memory"
	"github.com/pgconvoy/pgconvoy/pooler"
	"github.com/pgconvoy/pgconvoy/topology"
)

// ownPooler is a pooler that does at once what it is asked.
type ownPooler struct {
	mu     sync.Mutex
	target pooler.Target
	held   bool
	routed chan struct{} // closed by the first Route
	once   sync.Once
}

var _ topology.Pooler = (*ownPooler)(nil)

func newPooler() *ownPooler { return &ownPooler{routed: make(chan struct{})} }

func (p *ownPooler) State(context.Context) (pooler.State, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return pooler.State{Target: p.target, File: p.target, Held: p.held, Drained: p.held, At: time.Now()}, nil
}

func (p *ownPooler) Hold(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = true
	return nil
}

func (p *ownPooler) Route(_ context.Context, to pooler.Target) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target, p.held = to, false
	p.once.Do(func() { close(p.routed) })
	return nil
}

func TestPooler(t *testing.T) {
	p := newPooler()
	runAgent(t, memory.New(), p)
	state, err := p.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:5432")}
	if !slices.Equal(state.Target.Hosts, want) || state.Held {
		t.Errorf("the pooler was sent to %v (held: %v), want %v", state.Target.Hosts, state.Held, want)
	}
}

// runAgent runs the agent of a pooler until the test ends, and returns when the pooler is routed.
func runAgent(t *testing.T, store dcs.Store, p *ownPooler) {
	t.Helper()
	agent := &topology.Agent{
		Cluster: topology.Cluster{
			Path: "/service/demo", Store: store, Leaders: fixed{netip.MustParseAddrPort("10.0.0.1:5432")},
		},
		Name: "own-1", Listen: netip.MustParseAddrPort("10.0.0.7:6432"), Pooler: p,
	}
	run(t, agent.Run)
	select {
	case <-p.routed:
	case <-time.After(time.Minute):
		t.Fatalf("the pooler was not routed: %+v", agent.State())
	}
}

// run runs a role until the test ends.
func run(t *testing.T, role func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- role(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v, want %v", err, context.Canceled)
		}
	})
}

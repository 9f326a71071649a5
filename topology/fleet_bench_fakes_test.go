package topology_test

import (
	"context"
	"fmt"
	"iter"
	"net/netip"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/pooler"
)

// fleetPooler is one that does at once what it is told.
type fleetPooler struct {
	mu     sync.Mutex
	state  pooler.State
	at     time.Time     // of the last route
	change chan struct{} // closed at the next change
}

func (p *fleetPooler) State(context.Context) (pooler.State, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state, nil
}

func (p *fleetPooler) Hold(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state.Held, p.state.Drained = true, true
	p.changed()
	return nil
}

func (p *fleetPooler) Route(_ context.Context, to pooler.Target) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state, p.at = pooler.State{Target: to}, time.Now()
	p.changed()
	return nil
}

func (p *fleetPooler) changed() {
	close(p.change)
	p.change = make(chan struct{})
}

// await returns when the pooler is as it should be: on an address, or held (the zero address).
func (p *fleetPooler) await(b *testing.B, to netip.AddrPort) (at time.Time) {
	b.Helper()
	timeout := time.After(fleetWithin)
	for {
		p.mu.Lock()
		st, at, change := p.state, p.at, p.change
		p.mu.Unlock()
		if st.Held && !to.IsValid() || !st.Held && slices.Equal(st.Target.Hosts, []netip.AddrPort{to}) {
			return at
		}
		select {
		case <-change:
		case <-timeout:
			b.Fatalf("a pooler is on %v (held %v) and not on %v", st.Target, st.Held, to)
		}
	}
}

// fleetServers are databases of which one is the primary.
type fleetServers struct {
	mu       sync.Mutex
	addr     netip.AddrPort // of the primary
	timeline uint32
	change   chan struct{}
}

func (s *fleetServers) primary() netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

// promote makes another one the primary; the zero address is nobody's.
func (s *fleetServers) promote(addr netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addr = addr
	if addr.IsValid() {
		s.timeline++
	}
	close(s.change)
	s.change = make(chan struct{})
}

// Probe answers when something changes, and as often as one over SQL does.
func (s *fleetServers) Probe(ctx context.Context, addr netip.AddrPort) iter.Seq[patroni.Proof] {
	return func(yield func(patroni.Proof) bool) {
		for ctx.Err() == nil {
			s.mu.Lock()
			p := patroni.Proof{Writable: addr == s.addr, SystemID: "7", Timeline: s.timeline, At: time.Now()}
			change := s.change
			s.mu.Unlock()
			if !yield(p) {
				return
			}
			select {
			case <-ctx.Done():
			case <-change:
			case <-time.After(250 * time.Millisecond):
			}
		}
	}
}

// fleetPatroni writes what the Patronis of three nodes would.
type fleetPatroni struct {
	store   dcs.Store
	servers fleetServers
	leader  int         // number of the leadership
	held    dcs.Version // of the leader key; zero: there is none
	cancel  context.CancelFunc
	beating sync.WaitGroup
	lsn     atomic.Int64
}

func fleetNode(i int) (name string, addr netip.AddrPort) {
	return fmt.Sprintf("n%d", i+1), netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 5432)
}

func newFleetPatroni(b *testing.B, s dcs.Store) *fleetPatroni {
	b.Helper()
	p := &fleetPatroni{store: s, servers: fleetServers{change: make(chan struct{})}}
	p.put(b, "initialize", "7")
	p.put(b, "config", `{"ttl":30,"loop_wait":10,"retry_timeout":10,"synchronous_mode":true,"postgresql":{"use_pg_rewind":true}}`)
	p.beat(b)
	p.elect(b)
	ctx, cancel := context.WithCancel(b.Context())
	p.cancel = cancel
	p.beating.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(10 * time.Second): // loop_wait
				p.beat(b)
			}
		}
	})
	b.Cleanup(func() { p.end(b) })
	return p
}

// end takes the leader key away, so that another may begin on the same store.
func (p *fleetPatroni) end(b *testing.B) {
	b.Helper()
	p.cancel()
	p.beating.Wait()
	if p.held == (dcs.Version{}) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(b.Context()), fleetWithin)
	defer cancel()
	if err := p.store.Delete(ctx, path.Join(fleetPath, "leader"), p.held); err != nil {
		b.Error(err)
	}
	p.held = dcs.Version{}
}

// beat is one round of all three.
func (p *fleetPatroni) beat(b *testing.B) {
	lsn := p.lsn.Add(1 << 20)
	for i := range 3 {
		name, addr := fleetNode(i)
		p.put(b, "members/"+name, fmt.Sprintf(`{"conn_url":"postgres://%v/postgres","api_url":"http://%v:8008/patroni","state":"running",`+
			`"role":"replica","version":"4.1.5","xlog_location":%d,"timeline":1}`, addr, addr.Addr(), lsn))
	}
	p.put(b, "status", fmt.Sprintf(`{"optime":%d,"slots":{"n1":%d,"n2":%d,"n3":%d}}`, lsn, lsn, lsn, lsn))
}

// lose ends the primary, and its leader key.
func (p *fleetPatroni) lose(b *testing.B) {
	b.Helper()
	p.servers.promote(netip.AddrPort{})
	ctx, cancel := context.WithTimeout(b.Context(), fleetWithin)
	defer cancel()
	if err := p.store.Delete(ctx, path.Join(fleetPath, "leader"), p.held); err != nil {
		b.Fatal(err)
	}
	p.held = dcs.Version{}
}

// elect makes the next member the leader, of which the server is the primary already. It returns when its key was about
// to be written.
func (p *fleetPatroni) elect(b *testing.B) (at time.Time) {
	b.Helper()
	p.leader++
	name, addr := fleetNode(p.leader % 3)
	p.servers.promote(addr)
	ctx, cancel := context.WithTimeout(b.Context(), fleetWithin)
	defer cancel()
	at = time.Now()
	var err error
	if p.held, err = p.store.Put(ctx, path.Join(fleetPath, "leader"), []byte(name), dcs.Version{}); err != nil {
		b.Fatal(err)
	}
	return at
}

func (p *fleetPatroni) put(b *testing.B, key, value string) {
	key = path.Join(fleetPath, key)
	ctx, cancel := context.WithTimeout(b.Context(), fleetWithin)
	defer cancel()
	snap, err := p.store.Get(ctx, path.Dir(key))
	if err == nil {
		e, _ := snap.Get(key)
		_, err = p.store.Put(ctx, key, []byte(value), e.Version)
	}
	if err != nil && b.Context().Err() == nil {
		b.Errorf("writing %s: %v", key, err)
	}
}

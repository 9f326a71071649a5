package topology

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
)

// fakeProber answers as a test says.
type fakeProber struct {
	mu      sync.Mutex
	answers map[netip.AddrPort]patroni.Proof
}

func (p *fakeProber) set(addr netip.AddrPort, proof patroni.Proof) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers[addr] = proof
}

func (p *fakeProber) Probe(_ context.Context, addr netip.AddrPort) iter.Seq[patroni.Proof] {
	return func(yield func(patroni.Proof) bool) {
		p.mu.Lock()
		answer, ok := p.answers[addr]
		p.mu.Unlock()
		if answer.At = time.Now(); !ok {
			answer.Err = errDead
		}
		yield(answer)
	}
}

// fakeFencer is a Fencer that takes its time.
type fakeFencer struct {
	mu     sync.Mutex
	calls  []string
	takes  time.Duration
	err    error
	heeds  bool                   // the end of its context
	during func(m patroni.Member) // what happens meanwhile
}

func (f *fakeFencer) Fence(ctx context.Context, m patroni.Member) error {
	f.mu.Lock()
	f.calls = append(f.calls, m.Name)
	takes, err, heeds, during := f.takes, f.err, f.heeds, f.during
	f.mu.Unlock()
	var over <-chan struct{}
	if heeds {
		over = ctx.Done()
	}
	select {
	case <-time.After(takes):
	case <-over:
		return context.Cause(ctx)
	}
	if during != nil {
		during(m)
	}
	return err
}

func (f *fakeFencer) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.calls)
}

// errOff is the error of a host that is off.
var errOff = &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}

// fenceBench is a cluster of two: n1 holds the leader key and is proven, n2 is its synchronous standby.
type fenceBench struct {
	*bench
	prober *fakeProber
	fencer *fakeFencer
	lead   patroni.Leadership
	claim  dcs.Version // n1's
	node   dcs.Writer  // n1's Patroni
	lost   <-chan struct{}
	dead   map[string]error // REST APIs that do not answer, by host
	mu     sync.Mutex
	status map[string]string // what the others say
}

func inFenceBubble(t *testing.T, f func(b *fenceBench)) {
	t.Helper()
	inBubble(t, func(plain *bench) {
		plain.store.TTL = 30 * time.Second
		b := &fenceBench{
			bench: plain, prober: &fakeProber{answers: map[netip.AddrPort]patroni.Proof{}}, fencer: &fakeFencer{},
			dead: map[string]error{}, status: map[string]string{},
		}
		b.rest.answers(b.answer)
		for key, value := range map[string]string{
			"initialize": "7", "config": `{"ttl":30,"synchronous_mode":true}`, "sync": `{"leader":"n1","sync_standby":"n2"}`,
			"members/n2": member(addr2, "n2", "replica"),
		} {
			b.put(demo+"/"+key, []byte(value))
		}
		b.hold()
		b.lead = proven("n1", addr1, patroni.Epoch{SystemID: "7", Timeline: 1, Created: b.claim.Created})
		b.leads.set(b.lead)
		b.prober.set(addr1, b.lead.Proof)
		b.prober.set(addr2, patroni.Proof{SystemID: "7"}) // it has just lost its primary
		b.status["n2:8008"] = `{"state":"running","role":"replica","timeline":1}`
		b.status["n1:8008"] = `{"state":"running","role":"primary","timeline":1}`
		f(b)
	})
}

func member(addr netip.AddrPort, name, role string) string {
	return fmt.Sprintf(`{"conn_url":"postgres://%s/postgres","api_url":"http://%s:8008/patroni","state":"running","role":"%s","timeline":1}`, addr, name, role)
}

// hold has n1 hold the leader key under a lease, until the test ends or the lease is lost.
func (b *fenceBench) hold() {
	held, release, lost := make(chan struct{}), make(chan struct{}), make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = b.store.Lease(context.WithoutCancel(b.Context()), func(ctx context.Context, w dcs.Writer) error {
			var err error
			if b.claim, err = w.Put(ctx, demo+"/leader", []byte("n1"), dcs.Version{}); err != nil {
				b.Error(err)
			}
			if _, err := w.Put(ctx, demo+"/members/n1", []byte(member(addr1, "n1", "primary")), dcs.Version{}); err != nil {
				b.Error(err)
			}
			b.node = w
			close(held)
			select {
			case <-ctx.Done():
				close(lost)
			case <-release:
			}
			return nil
		})
	}()
	<-held
	b.lost = lost
	b.Cleanup(func() { close(release); <-done })
}

func (b *fenceBench) answer(req *http.Request, _ string) (*http.Response, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.dead[req.URL.Host]; err != nil {
		return nil, err
	}
	if s := b.status[req.URL.Host]; s != "" {
		return reply(http.StatusOK, s), nil
	}
	return reply(http.StatusServiceUnavailable, "no"), nil
}

func (b *fenceBench) rests(host string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dead[host] = err
}

// kill ends n1's PostgreSQL and Patroni. Its lease goes on: the ttl is long.
func (b *fenceBench) kill() {
	b.prober.set(addr1, patroni.Proof{Err: errDead})
	b.rests("n1:8008", errOff)
	b.leads.set(dead(b.lead))
}

// back lets it answer again.
func (b *fenceBench) back() {
	b.prober.set(addr1, b.lead.Proof)
	b.rests("n1:8008", nil)
	l := b.lead
	l.Proof.At = time.Now()
	b.leads.set(l)
}

func (b *fenceBench) fencing(name string) *Fencing {
	c := b.cluster()
	c.Prober = b.prober
	return &Fencing{Cluster: c, Name: name, Fencer: b.fencer, Patroni: b.client()}
}

// asked fails unless the Fencer was asked so often.
func (b *fenceBench) asked(times int) {
	b.Helper()
	synctest.Wait()
	if n := b.fencer.count(); n != times {
		b.Fatalf("the fencer was asked %d times, want %d", n, times)
	}
}

// holds fails unless n1 still has its claim, or has lost it.
func (b *fenceBench) holds(want bool) {
	b.Helper()
	synctest.Wait()
	s, err := b.store.Get(b.Context(), demo)
	if err != nil {
		b.Fatal(err)
	}
	if e, ok := s.Get(demo + "/leader"); ok != want || want && e.Version.Created != b.claim.Created {
		b.Fatalf("the leader key is %v %q %v, want n1's: %v", ok, e.Value, e.Version, want)
	}
}

// outcomes fails unless these are the outcomes of all attempts.
func (b *fenceBench) outcomes(want ...string) []record.Fence {
	b.Helper()
	synctest.Wait()
	s, err := b.store.Get(b.Context(), record.Dir(demo))
	if err != nil {
		b.Fatal(err)
	}
	all, _, err := record.FencesOf(s, demo)
	if err != nil {
		b.Fatal(err)
	}
	var got []string
	for _, f := range all.Fences {
		got = append(got, f.Outcome)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		b.Fatalf("the attempts were %v, want %v: %+v", got, want, all.Fences)
	}
	return all.Fences
}

var errNoPower = errors.New("the power switch does not answer")

package topology

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"net/netip"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/memory"
	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/pooler"
)

// The tests of the roles run in bubbles of testing/synctest: time is fake, and a bubble fails when a goroutine is left
// in it. A timer that fires orders nothing, so what the fakes count is behind a mutex.

const demo = "/service/demo"

var (
	addr1 = netip.MustParseAddrPort("10.0.0.1:5432")
	addr2 = netip.MustParseAddrPort("10.0.0.2:5432")
	addr3 = netip.MustParseAddrPort("10.0.0.3:5432")

	epoch1 = patroni.Epoch{SystemID: "7", Timeline: 1, Created: 100}
	epoch2 = patroni.Epoch{SystemID: "7", Timeline: 2, Created: 200}
	epoch3 = patroni.Epoch{SystemID: "7", Timeline: 3, Created: 300}
)

var errDead = errors.New("connection refused")

// proven is a leadership whose proof begins now.
func proven(member string, addr netip.AddrPort, e patroni.Epoch) patroni.Leadership {
	now := time.Now()
	return patroni.Leadership{
		Phase: patroni.Writable, Member: member, Addr: addr, Epoch: e, API: "http://" + member + ":8008",
		Proof:  patroni.Proof{Writable: true, Timeline: e.Timeline, SystemID: e.SystemID, At: now},
		Reason: "proven", At: now,
	}
}

// dead is the same leadership after the primary has stopped to answer.
func dead(l patroni.Leadership) patroni.Leadership {
	l.Phase, l.Reason, l.At = patroni.Elected, errDead.Error(), time.Now()
	l.Proof = patroni.Proof{At: time.Now(), Err: errDead}
	return l
}

// fakeLeaders is a LeaderSource whose level a test sets.
type fakeLeaders struct {
	mu      sync.Mutex
	lead    patroni.Leadership
	before  patroni.Leadership // the level that lead replaced
	since   time.Time          // and when
	end     error
	wake    map[chan struct{}]bool
	watches int
}

func (f *fakeLeaders) set(l patroni.Leadership) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before, f.lead, f.since = f.lead, l, time.Now()
	f.wakeAll()
}

// endWith makes each watch end.
func (f *fakeLeaders) endWith(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.end = err
	f.wakeAll()
}

func (f *fakeLeaders) wakeAll() {
	for c := range f.wake {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

func (f *fakeLeaders) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.watches
}

func (f *fakeLeaders) Watch(ctx context.Context) iter.Seq2[patroni.Leadership, error] {
	return func(yield func(patroni.Leadership, error) bool) {
		wake := make(chan struct{}, 1)
		began := time.Now()
		f.mu.Lock()
		if f.wake == nil {
			f.wake = map[chan struct{}]bool{}
		}
		f.wake[wake] = true
		f.watches++
		f.mu.Unlock()
		defer func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			delete(f.wake, wake)
		}()
		for {
			f.mu.Lock()
			l, end := f.lead, f.end
			f.mu.Unlock()
			if end == nil {
				end = context.Cause(ctx)
			}
			if l.Phase == patroni.Writable && l.At.Before(began) {
				l.At = began // each range proves anew
			}
			if !yield(l, end) || end != nil {
				return
			}
			select {
			case <-ctx.Done():
			case <-wake:
			case <-time.After(250 * time.Millisecond):
			}
		}
	}
}

// fakePooler records what is asked of it.
type fakePooler struct {
	mu       sync.Mutex
	state    pooler.State
	calls    []string
	busy     chan struct{} // a Hold waits for it; nil: nothing runs
	deaf     time.Duration // a Hold does not heed its context for so long
	holds    int           // under way
	most     int           // at one time
	holdErr  error
	routeErr error
	stateErr error
	dirty    bool // a Route that fails does so after it has resumed on the target
	at       []time.Time
}

func (p *fakePooler) do(f func(p *fakePooler)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p)
}

func (p *fakePooler) State(context.Context) (pooler.State, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state, p.stateErr
}

func (p *fakePooler) Hold(ctx context.Context) error {
	p.mu.Lock()
	p.calls, p.at = append(p.calls, "hold"), append(p.at, time.Now())
	err, busy, deaf := p.holdErr, p.busy, p.deaf
	if err == nil {
		p.state.Held = true
	}
	p.holds++
	p.most = max(p.most, p.holds)
	p.mu.Unlock()
	defer p.do(func(p *fakePooler) { p.holds-- })
	if err != nil {
		return err
	}
	if deaf > 0 {
		time.Sleep(deaf)
		return ctx.Err()
	}
	if busy != nil {
		select {
		case <-busy:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	p.do(func(p *fakePooler) { p.state.Drained = p.state.Held })
	return nil
}

func (p *fakePooler) Route(_ context.Context, to pooler.Target) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls, p.at = append(p.calls, "route "+to.String()), append(p.at, time.Now())
	if p.routeErr == nil || p.dirty {
		p.state.Target, p.state.Held, p.state.Drained = to, false, false
	}
	return p.routeErr
}

// done returns what was asked since the last call.
func (p *fakePooler) done() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	calls := p.calls
	p.calls, p.at = nil, nil
	return calls
}

func (p *fakePooler) wants(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	if got := p.done(); !slices.Equal(got, want) {
		t.Errorf("the pooler was asked %q, want %q", got, want)
	}
}

// bench is a store, a source and what runs on them.
type bench struct {
	*testing.T
	store *memory.Store
	leads *fakeLeaders
	rest  *fakeREST
}

// inBubble runs a test on a bench.
func inBubble(t *testing.T, f func(b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f(&bench{T: t, store: memory.New(), leads: &fakeLeaders{}, rest: &fakeREST{}})
	})
}

func (b *bench) cluster() Cluster {
	return Cluster{Path: demo, Store: b.store, Leaders: b.leads, Logger: slog.New(slog.NewTextHandler(b.Output(), nil))}
}

func (b *bench) client() *patroni.Client {
	return &patroni.Client{HTTP: &http.Client{Transport: b.rest}, Username: "admin", Password: "hunter2"}
}

// agent makes an agent for a pooler; names pgb-1 to pgb-9.
func (b *bench) agent(name string, p Pooler) *Agent {
	listen := netip.AddrPortFrom(netip.MustParseAddr("10.1.0."+name[len(name)-1:]), 6432)
	return &Agent{Cluster: b.cluster(), Name: name, Listen: listen, Pooler: p}
}

// run starts a role; stop ends it and waits. It also ends with the test.
func (b *bench) run(role interface{ Run(context.Context) error }) (stop func()) {
	b.Helper()
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(b.Context()))
	over := errors.New("the test is over")
	done := make(chan error, 1)
	go func() { done <- role.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel(over)
		if err := <-done; !errors.Is(err, over) {
			b.Errorf("Run returned %v", err)
		}
	})
	b.Cleanup(stop)
	synctest.Wait()
	return stop
}

// routed starts an agent whose pooler is found on addr1 at epoch1, and proven there.
func (b *bench) routed(name string) (*Agent, *fakePooler) {
	b.Helper()
	p := &fakePooler{state: pooler.State{Target: pooler.Target{Hosts: []netip.AddrPort{addr1}, Mark: epoch1.String()}}}
	if b.leads.lead.Phase == patroni.Unknown {
		b.leads.set(proven("n1", addr1, epoch1))
	}
	a := b.agent(name, p)
	b.run(a)
	b.state(a, Routed)
	p.wants(b.T)
	return a, p
}

func (b *bench) state(a *Agent, want PoolerState) AgentState {
	b.Helper()
	synctest.Wait()
	st := a.State()
	if st.State != want {
		b.Fatalf("%s is %s (%s, %v), want %s", a.Name, st.State, st.Reason, st.Err, want)
	}
	return st
}

// wait lets d go by, and then all that it set off.
func (b *bench) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (b *bench) entry(key string) dcs.Entry {
	b.Helper()
	s, err := b.store.Get(b.Context(), path.Dir(key))
	if err != nil {
		b.Fatal(err)
	}
	e, _ := s.Get(key)
	return e
}

func (b *bench) put(key string, value []byte) {
	b.Helper()
	s, err := b.store.Get(b.Context(), key[:strings.LastIndex(key, "/")])
	if err != nil {
		b.Fatal(err)
	}
	e, _ := s.Get(key)
	if _, err := b.store.Put(b.Context(), key, value, e.Version); err != nil {
		b.Fatal(err)
	}
	synctest.Wait()
}

func (b *bench) remove(key string) {
	b.Helper()
	if err := b.store.Delete(b.Context(), key, b.entry(key).Version); err != nil {
		b.Fatal(err)
	}
	synctest.Wait()
}

// registration is what an agent has written of its pooler.
func (b *bench) registration(name string) (record.Pooler, bool) {
	b.Helper()
	synctest.Wait()
	e := b.entry(record.PoolerKey(demo, name))
	if e.Value == nil {
		return record.Pooler{}, false
	}
	p, err := record.Decode[record.Pooler](e)
	if err != nil {
		b.Fatal(err)
	}
	return p, true
}

// operation writes the record of an operation as a coordinator would.
func (b *bench) operation(id, phase string, limit time.Duration) {
	b.Helper()
	o := record.Operation{ID: id, Kind: "switchover", From: "n1", To: "n2", Phase: phase, Epoch: epoch1, Limit: limit}
	b.put(record.OperationKey(demo), record.Encode(&o))
}

// fakeREST stands for the REST APIs of all members.
type fakeREST struct {
	mu     sync.Mutex
	calls  []restCall
	answer func(req *http.Request, body string) (*http.Response, error) // nil: 200
}

type restCall struct {
	at   time.Time
	what string
}

func (f *fakeREST) RoundTrip(req *http.Request) (*http.Response, error) {
	var body []byte
	if req.Body != nil {
		var err error
		if body, err = io.ReadAll(req.Body); err != nil {
			return nil, err
		}
	}
	f.mu.Lock()
	f.calls = append(f.calls, restCall{time.Now(), fmt.Sprintf("%s %s %s", req.Method, req.URL, body)})
	answer := f.answer
	f.mu.Unlock()
	if answer == nil {
		return reply(http.StatusOK, ""), nil
	}
	return answer(req, string(body))
}

// answers sets what is answered from now on.
func (f *fakeREST) answers(a func(req *http.Request, body string) (*http.Response, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = a
}

// sent returns the requests since the last call.
func (f *fakeREST) sent() []restCall {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := f.calls
	f.calls = nil
	return calls
}

func reply(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body)), Header: http.Header{}}
}

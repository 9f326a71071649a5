package topology

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
)

// fleet is a whole cluster of fakes with two agents, and a coordinator.
type fleet struct {
	*bench
	co      *Coordinator
	agents  []*Agent
	poolers []*fakePooler
	phases  func() []string // of the operation's record, in their order
}

func newFleet(b *bench) *fleet {
	b.Helper()
	for i, name := range []string{"n1", "n2", "n3"} {
		role, repl := "replica", `"replication_state":"streaming",`
		if i == 0 {
			role, repl = "primary", ""
		}
		b.put(demo+"/members/"+name, fmt.Appendf(nil, `{"conn_url":"postgres://10.0.0.%d:5432/postgres","api_url":"http://%s:8008/patroni",
			"state":"running","role":%q,%s"timeline":1,"xlog_location":%d}`, i+1, name, role, repl, 1000-i))
	}
	b.put(demo+"/leader", []byte("n1"))
	b.put(demo+"/config", []byte(`{"ttl":30,"synchronous_mode":true}`))
	b.put(demo+"/sync", []byte(`{"leader":"n1","sync_standby":"n2,n3"}`))
	store := &phaseStore{Store: b.store}
	f := &fleet{bench: b, co: &Coordinator{Cluster: b.cluster(), Patroni: b.client()}, phases: store.written}
	f.co.Store = store
	for _, name := range []string{"pgb-1", "pgb-2"} {
		a, p := b.routed(name)
		f.agents, f.poolers = append(f.agents, a), append(f.poolers, p)
	}
	b.wait(time.Second)
	return f
}

// phaseStore keeps the phases that are written to the operation's record, in their order.
type phaseStore struct {
	dcs.Store
	mu     sync.Mutex
	phases []string
}

type phaseWriter struct {
	dcs.Writer
	s *phaseStore
}

func (s *phaseStore) Lease(ctx context.Context, fn func(context.Context, dcs.Writer) error) error {
	return s.Store.Lease(ctx, func(ctx context.Context, w dcs.Writer) error { return fn(ctx, phaseWriter{w, s}) })
}

func (w phaseWriter) Put(ctx context.Context, key string, value []byte, prev dcs.Version) (dcs.Version, error) {
	v, err := w.Writer.Put(ctx, key, value, prev)
	if o, derr := record.Decode[record.Operation](dcs.Entry{Value: value}); err == nil && derr == nil {
		w.s.mu.Lock()
		defer w.s.mu.Unlock()
		w.s.phases = append(w.s.phases, o.Phase)
	}
	return v, err
}

func (s *phaseStore) written() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.phases)
}

// patroniSwitches makes Patroni's REST API carry a switchover out: the new primary is proven after lasts, the answer
// comes a second later.
func (f *fleet) patroniSwitches(lasts time.Duration) {
	f.rest.answers(func(req *http.Request, body string) (*http.Response, error) {
		if !strings.Contains(body, `"leader":"n1"`) || req.URL.String() != "http://n1:8008/switchover" {
			return reply(http.StatusBadRequest, body), nil
		}
		f.leads.set(dead(proven("n1", addr1, epoch1)))
		time.Sleep(lasts)
		f.leads.set(proven("n2", addr2, epoch2))
		select {
		case <-time.After(time.Second):
		case <-req.Context().Done():
			return nil, req.Context().Err()
		}
		return reply(http.StatusOK, "Successfully switched over"), nil
	})
}

func (f *fleet) all(want PoolerState) {
	f.Helper()
	for _, a := range f.agents {
		f.state(a, want)
	}
}

func (f *fleet) calls(want ...string) {
	f.Helper()
	for _, p := range f.poolers {
		p.wants(f.T, want...)
	}
}

func steps(r Report) (names []string) {
	for _, s := range r.Steps {
		names = append(names, s.Name)
	}
	return names
}

func TestSwitchover(t *testing.T) {
	inBubble(t, func(b *bench) {
		f := newFleet(b)
		f.patroniSwitches(300 * time.Millisecond)
		plan, err := f.co.Plan(b.Context(), Switchover{})
		if err != nil || len(plan.Refusals) > 0 || plan.From != "n1" || plan.To != "n2" {
			t.Fatalf("plan %+v, %v", plan, err)
		}
		if len(f.rest.sent()) > 0 || b.entry(record.OperationKey(demo)).Value != nil {
			t.Error("the plan has changed something")
		}
		began := time.Now()
		r, err := f.co.Do(b.Context(), Switchover{})
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d > 400*time.Millisecond {
			t.Errorf("took %s: the answer of Patroni was waited for", d)
		}
		if r.From != "n1" || r.To != "n2" || r.Before != epoch1 || r.After != epoch2 || r.ID == "" || r.Held < 300*time.Millisecond || len(r.Notes) > 0 {
			t.Errorf("report %+v", r)
		}
		if got := steps(r); !slices.Equal(got, []string{"prepare", "hold", "switch", "release"}) {
			t.Errorf("steps %q", got)
		}
		if s := r.String(); !strings.Contains(s, "from n1 to n2") || strings.Count(s, "\n") != 5 {
			t.Errorf("report:\n%s", s)
		}
		f.all(Routed)
		f.calls("hold", toN2)
		if got := f.phases(); !slices.Equal(got, []string{"prepare", "hold", "switch", "done"}) {
			t.Errorf("phases %q", got)
		}
		if sent := f.rest.sent(); len(sent) != 1 || !strings.Contains(sent[0].what, `"candidate":"n2"`) {
			t.Errorf("asked %v", sent)
		}
		b.wait(time.Minute)
		f.calls()
		if b.entry(record.OperationKey(demo)).Value != nil {
			t.Error("the record is left")
		}
	})
}

func TestAnotherMemberTakesOver(t *testing.T) {
	inBubble(t, func(b *bench) {
		f := newFleet(b)
		f.patroniSwitches(time.Second)
		r, err := f.co.Do(b.Context(), Switchover{To: "n3"})
		if err != nil || r.To != "n2" || len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "instead of n3") {
			t.Errorf("report %+v, %v", r, err)
		}
	})
}

func TestSwitchoverIsRefused(t *testing.T) {
	inBubble(t, func(b *bench) {
		f := newFleet(b)
		b.put(demo+"/config", []byte(`{"pause":true}`))
		_, err := f.co.Do(b.Context(), Switchover{To: "n9"})
		var refused *RefusedError
		if !errors.As(err, &refused) || len(refused.Refusals) != 2 {
			t.Errorf("error %v", err)
		}
		f.all(Routed)
		f.calls()
		if len(f.rest.sent()) > 0 {
			t.Error("Patroni was asked")
		}
		if got := f.phases(); !slices.Equal(got, []string{"prepare"}) {
			t.Errorf("phases %q", got)
		}
	})
}

// With no primary in sight a plan does not wait for ever.
func TestPlanWithoutAPrimary(t *testing.T) {
	inBubble(t, func(b *bench) {
		f := newFleet(b)
		b.leads.set(dead(proven("n1", addr1, epoch1)))
		began := time.Now()
		plan, err := f.co.Plan(b.Context(), Switchover{})
		if err != nil || len(plan.Refusals) == 0 || time.Since(began) > 5*time.Second {
			t.Errorf("after %s: %+v, %v", time.Since(began), plan, err)
		}
		ctx, cancel := context.WithCancelCause(b.Context())
		cancel(errDead)
		if _, err := f.co.Plan(ctx, Switchover{}); !errors.Is(err, errDead) {
			t.Errorf("with an ended context: %v", err)
		}
		denied := &fakeLeaders{end: errors.New("permission denied")}
		f.co.Leaders = denied
		if _, err := f.co.Plan(b.Context(), Switchover{}); err == nil || err.Error() != "permission denied" {
			t.Errorf("with a watch that ended: %v", err)
		}
	})
}

func TestUnknownOperation(t *testing.T) {
	inBubble(t, func(b *bench) {
		f := newFleet(b)
		if _, err := f.co.Plan(b.Context(), nil); err == nil {
			t.Error("no operation was planned")
		}
		if _, err := f.co.Do(b.Context(), nil); err == nil {
			t.Error("no operation was done")
		}
	})
}

// calledOff checks that nothing happened and nobody holds.
func (f *fleet) calledOff(r Report, err error, step string) {
	f.Helper()
	var aborted *AbortedError
	if !errors.As(err, &aborted) || aborted.Step != step || errors.Is(err, ErrUnknown) {
		f.Errorf("error %v, want one in step %s", err, step)
	}
	if got := steps(r); len(got) == 0 || got[len(got)-1] != "undo" {
		f.Errorf("steps %q", got)
	}
	f.all(Routed)
	for _, a := range f.agents {
		if st := a.State(); st.Epoch != epoch1 || st.Target.Hosts[0] != addr1 {
			f.Errorf("%s is on %v", a.Name, st.Target)
		}
	}
}

func TestOnePoolerDoesNotDrain(t *testing.T) {
	inBubble(t, func(b *bench) {
		f := newFleet(b)
		f.poolers[1].do(func(p *fakePooler) { p.busy = make(chan struct{}) })
		began := time.Now()
		r, err := f.co.Do(b.Context(), Switchover{})
		f.calledOff(r, err, "hold")
		if d := time.Since(began); d < 5*time.Second || d > 6*time.Second {
			t.Errorf("took %s", d)
		}
		if !strings.Contains(err.Error(), "pgb-2") || strings.Contains(err.Error(), "pgb-1") {
			t.Errorf("who did not hold: %v", err)
		}
		f.calls("hold", toN1)
		if len(f.rest.sent()) > 0 {
			t.Error("Patroni was asked")
		}
		if got := f.phases(); !slices.Equal(got, []string{"prepare", "hold", "release"}) {
			t.Errorf("phases %q", got)
		}
	})
}

func TestPatroniRefuses(t *testing.T) {
	for name, answer := range map[string]func(*http.Request, string) (*http.Response, error){
		"412": func(*http.Request, string) (*http.Response, error) {
			return reply(http.StatusPreconditionFailed, "candidate is not sync"), nil
		},
		"503 failed": func(*http.Request, string) (*http.Response, error) {
			return reply(http.StatusServiceUnavailable, "Switchover failed"), nil
		},
		"no connection": func(*http.Request, string) (*http.Response, error) {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errDead}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bench) {
				f := newFleet(b)
				f.rest.answers(answer)
				began := time.Now()
				r, err := f.co.Do(b.Context(), Switchover{})
				f.calledOff(r, err, "switch")
				if d := time.Since(began); d > time.Second {
					t.Errorf("took %s", d)
				}
				f.calls("hold", toN1)
				if got := f.phases(); !slices.Equal(got, []string{"prepare", "hold", "switch", "release"}) {
					t.Errorf("phases %q", got)
				}
				if len(f.rest.sent()) != 1 {
					t.Error("Patroni was asked again")
				}
			})
		})
	}
}

// A store that is in trouble for a moment when the release is written does not leave the fleet held for the whole limit.
func TestReleaseIsWrittenAgain(t *testing.T) {
	inBubble(t, func(b *bench) {
		f := newFleet(b)
		f.rest.answers(func(*http.Request, string) (*http.Response, error) {
			b.store.SetDown(errors.New("no quorum"))
			go func() {
				time.Sleep(2 * time.Second)
				b.store.SetDown(nil)
			}()
			return reply(http.StatusPreconditionFailed, "no"), nil
		})
		began := time.Now()
		r, err := f.co.Do(b.Context(), Switchover{})
		f.calledOff(r, err, "switch")
		if d := time.Since(began); d > 3*time.Second {
			t.Errorf("took %s", d)
		}
	})
}

// An answer that was lost is no reason to send the request again: what is proven decides.
func TestAnswerIsLost(t *testing.T) {
	for name, answer := range map[string]func() (*http.Response, error){
		"reset":       func() (*http.Response, error) { return nil, errors.New("connection reset") },
		"503 unknown": func() (*http.Response, error) { return reply(503, "Switchover status unknown"), nil },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bench) {
				f := newFleet(b)
				f.rest.answers(func(*http.Request, string) (*http.Response, error) {
					b.leads.set(dead(proven("n1", addr1, epoch1)))
					go func() {
						time.Sleep(3 * time.Second)
						b.leads.set(proven("n2", addr2, epoch2))
					}()
					return answer()
				})
				r, err := f.co.Do(b.Context(), Switchover{})
				if err != nil || r.After != epoch2 {
					t.Errorf("report %+v, %v", r, err)
				}
				f.calls("hold", toN2)
				if sent := f.rest.sent(); len(sent) != 1 {
					t.Errorf("sent %v", sent)
				}
			})
		})
	}
}

// A refusal that comes with the proof of a new primary is overruled by it.
func TestRefusalAfterTheProof(t *testing.T) {
	inBubble(t, func(b *bench) {
		f := newFleet(b)
		f.rest.answers(func(*http.Request, string) (*http.Response, error) {
			b.leads.set(proven("n2", addr2, epoch2))
			synctest.Wait()
			return reply(http.StatusInternalServerError, "oops"), nil
		})
		if r, err := f.co.Do(b.Context(), Switchover{}); err != nil || r.After != epoch2 {
			t.Errorf("report %+v, %v", r, err)
		}
		f.all(Routed)
	})
}

func TestNothingIsProven(t *testing.T) {
	for name, back := range map[string]bool{"and the old primary is back": true, "at all": false} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bench) {
				f := newFleet(b)
				f.rest.answers(func(*http.Request, string) (*http.Response, error) {
					b.leads.set(dead(proven("n1", addr1, epoch1)))
					return nil, errors.New("connection reset")
				})
				began := time.Now()
				_, err := f.co.Do(b.Context(), Switchover{})
				if !errors.Is(err, ErrUnknown) {
					t.Errorf("error %v", err)
				}
				if d := time.Since(began); d > 30*time.Second {
					t.Errorf("took %s", d)
				}
				f.all(Held) // by proof or deadline, without the coordinator
				if back {
					b.wait(2 * time.Second)
					b.leads.set(proven("n1", addr1, epoch1))
					b.wait(limit)
					f.all(Routed)
					f.calls("hold", toN1)
					return
				}
				b.wait(limit + grace)
				f.all(Failed)
				f.calls("hold", toNil)
				b.leads.set(proven("n3", addr3, epoch3))
				f.all(Routed)
			})
		})
	}
}

func TestCallerLeaves(t *testing.T) {
	left := errors.New("the caller has left")
	for name, after := range map[string]time.Duration{"in hold": time.Second, "in switch": 10 * time.Second} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bench) {
				f := newFleet(b)
				f.poolers[1].do(func(p *fakePooler) {
					p.busy = make(chan struct{})
					if after > 5*time.Second {
						close(p.busy)
					}
				})
				f.rest.answers(func(req *http.Request, _ string) (*http.Response, error) {
					<-req.Context().Done()
					return nil, req.Context().Err()
				})
				ctx, cancel := context.WithCancelCause(b.Context())
				stop := time.AfterFunc(after, func() { cancel(left) })
				defer stop.Stop()
				r, err := f.co.Do(ctx, Switchover{})
				if !errors.Is(err, left) {
					t.Errorf("error %v", err)
				}
				if after > 5*time.Second {
					if !errors.Is(err, ErrUnknown) {
						t.Errorf("error %v", err)
					}
					f.all(Held)
					return
				}
				f.calledOff(r, err, "hold")
			})
		})
	}
}

func TestTwoCoordinators(t *testing.T) {
	inBubble(t, func(b *bench) {
		f := newFleet(b)
		f.patroniSwitches(time.Second)
		errs := make(chan error, 2)
		for range 2 {
			co := &Coordinator{Cluster: b.cluster(), Patroni: b.client()}
			go func() {
				_, err := co.Do(b.Context(), Switchover{})
				errs <- err
			}()
		}
		first, second := <-errs, <-errs // the refusal comes first
		var refused *RefusedError
		if !errors.As(first, &refused) || len(refused.Refusals) != 1 || !strings.Contains(first.Error(), "(a switchover in phase ") {
			t.Errorf("one got %v", first)
		}
		if second != nil {
			t.Errorf("the other got %v", second)
		}
		f.calls("hold", toN2)
		if sent := f.rest.sent(); len(sent) != 1 {
			t.Errorf("sent %v", sent)
		}
	})
}

func TestLeaseIsLost(t *testing.T) {
	inBubble(t, func(b *bench) {
		f := newFleet(b)
		f.rest.answers(func(req *http.Request, _ string) (*http.Response, error) {
			b.store.SetDown(errors.New("no quorum"))
			<-req.Context().Done()
			return nil, req.Context().Err()
		})
		_, err := f.co.Do(b.Context(), Switchover{})
		if !errors.Is(err, ErrUnknown) || !errors.Is(err, dcs.ErrLeaseLost) {
			t.Errorf("error %v", err)
		}
		f.all(Held)
		b.store.SetDown(nil)
		b.wait(time.Second)
		b.leads.set(proven("n2", addr2, epoch2)) // Patroni went on
		f.all(Routed)
		f.calls("hold", toN2)
	})
}

func TestLeaseIsLostInTheHold(t *testing.T) {
	inBubble(t, func(b *bench) {
		f := newFleet(b)
		f.poolers[1].do(func(p *fakePooler) { p.busy = make(chan struct{}) })
		stop := time.AfterFunc(time.Second, func() { b.store.SetDown(errors.New("no quorum")) })
		defer stop.Stop()
		_, err := f.co.Do(b.Context(), Switchover{Budget: 20 * time.Second})
		var aborted *AbortedError
		if !errors.As(err, &aborted) || !errors.Is(err, dcs.ErrLeaseLost) {
			t.Errorf("error %v", err)
		}
		if len(f.rest.sent()) > 0 {
			t.Error("Patroni was asked")
		}
		b.store.SetDown(nil)
		b.wait(2 * time.Second)
		f.all(Routed)
		f.calls("hold", toN1)
	})
}

// The hook's way: the operation never asks for the hold itself.
func TestSwitchoverWithHooks(t *testing.T) {
	inBubble(t, func(b *bench) {
		f := newFleet(b)
		for _, m := range []string{"n1", "n2", "n3"} {
			if err := (&BeforeStop{Path: demo, Store: b.store, Member: m}).Install(b.Context()); err != nil {
				t.Fatal(err)
			}
		}
		f.rest.answers(func(*http.Request, string) (*http.Response, error) {
			time.Sleep(2 * time.Second) // Patroni's own checkpoint, while clients are served
			f.calls()
			if err := (&BeforeStop{Path: demo, Store: b.store, Member: "n1"}).Run(b.Context()); err != nil {
				t.Errorf("the hook: %v", err)
			}
			f.calls("hold")
			time.Sleep(100 * time.Millisecond)
			b.leads.set(dead(proven("n1", addr1, epoch1)))
			time.Sleep(100 * time.Millisecond)
			b.leads.set(proven("n2", addr2, epoch2))
			return reply(http.StatusOK, ""), nil
		})
		r, err := f.co.Do(b.Context(), Switchover{})
		if err != nil || r.Held < 200*time.Millisecond || r.Held > 300*time.Millisecond || len(r.Notes) > 0 {
			t.Errorf("report %+v, %v", r, err)
		}
		f.calls(toN2)
		if got := f.phases(); !slices.Equal(got, []string{"prepare", "switch", "done"}) {
			t.Errorf("phases %q", got)
		}
	})
}

// checkpoints is a Prober that can checkpoint, and nothing else.
type checkpoints struct {
	fakePooler // for its record of calls
	took       []time.Duration
	err        error
}

func (c *checkpoints) Probe(context.Context, netip.AddrPort) iter.Seq[patroni.Proof] {
	return func(func(patroni.Proof) bool) {}
}

func (c *checkpoints) Checkpoint(_ context.Context, addr netip.AddrPort) error {
	var d time.Duration
	c.do(func(*fakePooler) {
		c.calls = append(c.calls, addr.String())
		if addr == addr1 && len(c.took) > 0 {
			d, c.took = c.took[0], c.took[1:]
		}
	})
	time.Sleep(d)
	return c.err
}

func TestPrepareCheckpoints(t *testing.T) {
	inBubble(t, func(b *bench) {
		f := newFleet(b)
		f.patroniSwitches(time.Second)
		cp := &checkpoints{took: []time.Duration{2 * time.Second, 500 * time.Millisecond, 100 * time.Millisecond}}
		f.co.Prober = cp
		r, err := f.co.Do(b.Context(), Switchover{})
		if err != nil {
			t.Fatal(err)
		}
		calls := cp.done()
		slices.Sort(calls)
		if want := []string{addr1.String(), addr1.String(), addr1.String(), addr2.String()}; !slices.Equal(calls, want) {
			t.Errorf("checkpoints on %q", calls)
		}
		if !strings.Contains(r.Steps[0].Evidence, "100ms") {
			t.Errorf("evidence %q", r.Steps[0].Evidence)
		}
	})
}

// A checkpoint is not required.
func TestPrepareFails(t *testing.T) {
	inBubble(t, func(b *bench) {
		f := newFleet(b)
		f.patroniSwitches(time.Second)
		f.co.Prober = &checkpoints{err: errDead}
		r, err := f.co.Do(b.Context(), Switchover{})
		if err != nil || len(r.Notes) != 1 || !strings.Contains(r.Notes[0], errDead.Error()) {
			t.Errorf("report %+v, %v", r, err)
		}
	})
}

package topology

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
)

// waker is a routed agent that may wake Patroni, among other live agents.
func waker(b *bench, name string, others ...record.Pooler) (*Agent, *fakePooler) {
	b.Helper()
	for i, o := range others {
		b.put(record.PoolerKey(demo, "pgb-"+string(rune('1'+i))), record.Encode(&o))
	}
	b.leads.set(proven("n1", addr1, epoch1))
	p := &fakePooler{}
	p.state.Target = target(epoch1, addr1)
	a := b.agent(name, p)
	a.Patroni = b.client()
	b.run(a)
	b.state(a, Routed)
	b.wait(time.Second)
	return a, p
}

func TestWake(t *testing.T) {
	const what = `PATCH http://n1:8008/config {"pgconvoy_wake":null}`
	alive := record.Pooler{Service: "write"}
	for _, c := range []struct {
		name        string
		agent       string
		others      []record.Pooler
		first, last time.Duration // when the first wake is sent; last 0: never
		change      func(l *patroni.Leadership)
	}{
		{"the lowest name, at once", "pgb-1", nil, 0, 1, nil},
		{"not the lowest name, later", "pgb-3", []record.Pooler{alive}, 300 * time.Millisecond, 500 * time.Millisecond, nil},
		{"the lowest of the write service", "pgb-3", []record.Pooler{{Service: "read"}}, 0, 1, nil},
		{"a paused cluster", "pgb-1", nil, 0, 0, func(l *patroni.Leadership) { l.Paused = true }},
		{"no REST address", "pgb-1", nil, 0, 0, func(l *patroni.Leadership) { l.API = "" }},
		{"a store in trouble", "pgb-1", nil, 0, 0, func(l *patroni.Leadership) { l.Stale = errDead }},
		{"a primary that answers", "pgb-1", nil, 0, 0, func(l *patroni.Leadership) { l.Proof.Err = nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(b *bench) {
				a, _ := waker(b, c.agent, c.others...)
				lost := dead(b.leads.lead)
				if c.change != nil {
					c.change(&lost)
				}
				began := time.Now()
				b.leads.set(lost)
				b.state(a, Held)
				b.wait(2 * time.Second)
				sent := b.rest.sent()
				if c.last == 0 {
					if len(sent) > 0 {
						t.Errorf("sent %v", sent)
					}
					return
				}
				if len(sent) < 5 {
					t.Fatalf("sent %d times in 2 s", len(sent))
				}
				if d := sent[0].at.Sub(began); d < c.first || d > c.last || sent[0].what != what {
					t.Errorf("%s after %s", sent[0].what, d)
				}
				b.leads.set(proven("n2", addr2, epoch2))
				b.state(a, Routed)
				b.rest.sent()
				b.wait(time.Minute)
				if sent := b.rest.sent(); len(sent) > 0 {
					t.Errorf("after the route sent %v", sent)
				}
			})
		})
	}
}

func TestWakeIsRefused(t *testing.T) {
	inBubble(t, func(b *bench) {
		a, _ := waker(b, "pgb-1")
		b.rest.answers(func(*http.Request, string) (*http.Response, error) { return reply(http.StatusUnauthorized, "no"), nil })
		for i, want := range []int{1, 0} { // for good
			lost := dead(b.leads.lead)
			b.leads.set(lost)
			b.state(a, Held)
			b.wait(10 * time.Second)
			if sent := b.rest.sent(); len(sent) != want {
				t.Errorf("loss %d: sent %v", i, sent)
			}
			b.leads.set(proven("n1", addr1, epoch1))
			b.state(a, Routed)
			b.wait(time.Second)
		}
		if st := a.State(); st.Err != nil && strings.Contains(st.Err.Error(), "hunter2") {
			t.Error("the password is in an error")
		}
	})
}

// A Patroni that does not answer delays nothing, and is tried again.
func TestWakeWithoutAnswer(t *testing.T) {
	inBubble(t, func(b *bench) {
		a, _ := waker(b, "pgb-1")
		b.rest.answers(func(req *http.Request, _ string) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		})
		b.leads.set(dead(b.leads.lead))
		b.state(a, Held)
		b.wait(5 * time.Second)
		if sent := b.rest.sent(); len(sent) < 3 || len(sent) > 6 {
			t.Errorf("sent %d times in 5 s", len(sent))
		}
		began := time.Now()
		b.leads.set(proven("n2", addr2, epoch2))
		if b.state(a, Routed); time.Since(began) > 0 {
			t.Errorf("routed after %s", time.Since(began))
		}
	})
}

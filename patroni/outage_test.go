package patroni_test

import (
	"context"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgconvoy/pgconvoy/patroni"
)

// apis is a transport to the members' REST APIs, without a network: an answer takes a millisecond.
type apis struct {
	asked   atomic.Int64
	running atomic.Int64
	most    atomic.Int64 // that ran at once

	mu    sync.Mutex
	says  map[string]string // /patroni by host; empty: the connection is refused
	hangs bool
}

func (r *apis) set(host, says string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.says[host] = says
}

func (r *apis) hang(hangs bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hangs = hangs
}

func (r *apis) RoundTrip(req *http.Request) (*http.Response, error) {
	r.asked.Add(1)
	r.most.Store(max(r.running.Add(1), r.most.Load()))
	defer r.running.Add(-1)
	r.mu.Lock()
	says := r.says[req.URL.Host]
	hangs := r.hangs
	r.mu.Unlock()
	wait := time.Millisecond
	if hangs {
		wait = time.Hour
	}
	select {
	case <-req.Context().Done():
		return nil, req.Context().Err()
	case <-time.After(wait):
	}
	if says == "" || req.URL.Path != "/patroni" {
		return nil, errLost
	}
	body := io.NopCloser(strings.NewReader(says))
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: body, Request: req}, nil
}

// status is what Patroni 4.1.5 says without its store.
func status(name, role string, timeline uint32, more string) string {
	return fmt.Sprintf(`{"state":"running","role":%q,"server_version":150014,"timeline":%d,"cluster_unlocked":true,"dcs_last_seen":1764000000,`+
		`"database_system_identifier":%q,"patroni":{"version":"4.1.5","scope":"demo","name":%q}%s}`, role, timeline, systemID, name, more)
}

const (
	active = `,"failsafe_mode_is_active":true`
	api1   = "10.0.0.1:8008"
)

// outage is a scene whose members have REST APIs: n1 goes on by failsafe mode.
func outage(t *testing.T, play func(s *scene, r *apis)) {
	t.Helper()
	stage(t, func(s *scene) {
		r := &apis{says: map[string]string{api1: status("n1", "primary", 3, active)}}
		s.source.Client = &patroni.Client{HTTP: &http.Client{Transport: r}}
		s.member("n3", n3)
		s.ask.set(n3, replica(3))
		play(s, r)
		synctest.Wait()
		if n := r.running.Load(); n != 0 {
			t.Errorf("%d questions to REST APIs are left", n)
		}
	})
}

// fail takes the store away once the primary is proven, and returns what was proven.
func (s *scene) fail() patroni.Leadership {
	s.Helper()
	l := s.after(time.Second, patroni.Writable)
	s.store.SetDown(errDown)
	return l
}

// past is the present finding.
func (s *scene) past(d time.Duration) patroni.Outage {
	s.Helper()
	time.Sleep(d)
	l := s.now()
	if l.Outage == nil {
		s.Fatalf("after %v: nothing was learned past the store: %+v", d, l)
	}
	return *l.Outage
}

// A round begins half a second after the last one, when one of its questions or the tick comes by.
const roundTakes = 500*time.Millisecond + 250*time.Millisecond

// calm is the same from one round to the next while the primary was never lost.
const calm = 2 * time.Second

func TestAnOutageIsWatched(t *testing.T) {
	outage(t, func(s *scene, r *apis) {
		defer s.watch()()
		before := s.fail()
		down := time.Now()
		if before.Outage != nil || s.ask.running.Load() != 1 || r.asked.Load() != 0 {
			t.Errorf("while the store answers: %+v, %d probes, %d questions", before.Outage, s.ask.running.Load(), r.asked.Load())
		}
		for time.Since(down) < time.Minute {
			o := s.past(337 * time.Millisecond)
			if !o.Failsafe || o.Ahead != "" || !strings.Contains(o.Reason, "n1") {
				t.Fatalf("%+v", o)
			}
			if age := time.Since(o.At); o.At.Before(down) || age > calm+roundTakes {
				t.Fatalf("%v old, %v after the outage began", age, o.At.Sub(down))
			}
		}
		l := s.after(0, patroni.Writable) // the phase is what it is
		if l.Epoch != before.Epoch || !l.At.Equal(before.At) {
			t.Errorf("%+v", l)
		}
		if n := r.asked.Load(); n < 25 || n > 31 || r.most.Load() > 1 {
			t.Errorf("the REST API was asked %d times in a minute, %d at once", n, r.most.Load())
		}
		if n := s.ask.running.Load(); n != 3 {
			t.Errorf("%d probes of three members", n)
		}

		s.store.SetDown(nil)
		time.Sleep(250 * time.Millisecond)
		if l = s.after(0, patroni.Writable); l.Outage != nil || l.Stale != nil || !l.At.Equal(before.At) {
			t.Errorf("the store is back: %+v", l)
		}
		for _, l := range s.levels() {
			if l.Stale == nil && l.Outage != nil {
				t.Errorf("an outage while the store answers: %+v", l)
			}
		}
		asked := r.asked.Load()
		time.Sleep(10 * time.Second)
		if n := s.ask.running.Load(); n != 1 || r.asked.Load() != asked {
			t.Errorf("the store is back, and there are %d probes, %d questions", n, r.asked.Load()-asked)
		}
		for range 3 { // each has an outage of its own
			s.store.SetDown(errDown)
			if o := s.past(roundTakes); !o.Failsafe {
				t.Errorf("%+v", o)
			}
			s.store.SetDown(nil)
			s.after(250*time.Millisecond, patroni.Writable)
		}
		s.store.SetDown(errDown) // and a watch that ends in the middle of one leaves nothing
		time.Sleep(200 * time.Microsecond)
	})
}

func TestAnOutageBeforeAnythingWasProven(t *testing.T) {
	outage(t, func(s *scene, r *apis) {
		s.ask.set(n1, replica(3))
		s.ask.set(n2, primary(4))
		defer s.watch()()
		s.after(time.Second, patroni.Promoting)
		s.store.SetDown(errDown)
		s.ask.set(n1, primary(3))
		time.Sleep(time.Minute)
		for _, l := range s.levels() {
			if l.Outage != nil {
				t.Fatalf("%+v", l.Outage)
			}
		}
		if n := s.ask.running.Load(); n != 1 || r.asked.Load() != 0 {
			t.Errorf("%d probes, %d questions", n, r.asked.Load())
		}
	})
}

func TestAnOutageWithoutAClient(t *testing.T) {
	outage(t, func(s *scene, _ *apis) {
		s.source.Client = nil
		defer s.watch()()
		s.fail()
		if o := s.past(roundTakes); o.Failsafe || !strings.Contains(o.Reason, "no client") {
			t.Errorf("%+v", o)
		}
		s.ask.set(n3, primary(4))
		if o := s.past(time.Millisecond); o.Ahead != "n3" {
			t.Errorf("%+v", o)
		}
	})
}

func TestWhatIsNoFailsafe(t *testing.T) {
	rest1 := func(says string) func(s *scene, r *apis) { return func(_ *scene, r *apis) { r.set(api1, says) } }
	sql1 := func(p patroni.Proof) func(s *scene, r *apis) { return func(s *scene, _ *apis) { s.ask.set(n1, p) } }
	other := strings.Replace(status("n1", "primary", 3, active), systemID, "1", 1)
	for _, c := range []struct {
		name   string
		change func(s *scene, r *apis) // after the store is lost
		reason string
	}{
		{"REST hangs", func(_ *scene, r *apis) { r.hang(true) }, "Patroni"},
		{"REST refuses", rest1(""), errLost.Error()},
		{"REST talks nonsense", rest1("<html>"), "cannot be read"},
		{"REST of a replica", rest1(status("n1", "replica", 3, active)), "it is a replica"},
		{"REST of a demoted one", rest1(status("n1", "demoted", 0, "")), "it is a demoted"},
		{"REST of another member", rest1(status("n2", "primary", 3, active)), "is n2"},
		{"REST of another database", rest1(other), "database 1"},
		{"REST on another timeline", rest1(status("n1", "primary", 4, active)), "timeline 4"},
		{"failsafe mode is off", rest1(status("n1", "primary", 3, "")), "failsafe mode"},
		{"SQL is lost", sql1(lost()), errLost.Error()},
		{"SQL is in recovery", sql1(replica(3)), "in recovery"},
		{"SQL on another timeline", sql1(primary(2)), "timeline 2"},
		{"SQL of another database", sql1(patroni.Proof{Writable: true, Timeline: 3, SystemID: "1"}), "database 1"},
		{"SQL rests", func(*scene, *apis) {}, "over SQL in time"},
	} {
		t.Run(c.name, func(t *testing.T) {
			outage(t, func(s *scene, r *apis) {
				if c.name == "SQL rests" {
					s.ask.rest = time.Hour // for longer than a question may take
				}
				defer s.watch()()
				s.fail()
				c.change(s, r)
				changed := time.Now()
				var found int
				for time.Since(changed) < 10*time.Second {
					time.Sleep(50 * time.Millisecond)
					o := s.now().Outage
					if o == nil || o.At.Before(changed) {
						continue // what was asked before
					}
					if found++; o.Failsafe || !strings.Contains(o.Reason, c.reason) && time.Since(changed) > 3*time.Second {
						t.Fatalf("%+v", o)
					}
					if age := time.Since(o.At); age > calm+time.Second+roundTakes {
						t.Fatalf("%v old", age)
					}
				}
				if found == 0 {
					t.Error("no round was ever over")
				}
				if r.most.Load() > 1 {
					t.Errorf("%d questions at once", r.most.Load())
				}
			})
		})
	}
}

func TestALossInAnOutage(t *testing.T) {
	outage(t, func(s *scene, _ *apis) {
		defer s.watch()()
		s.fail()
		if o := s.past(roundTakes); !o.Failsafe {
			t.Fatalf("%+v", o)
		}
		s.ask.set(n1, lost())
		if l := s.after(0, patroni.Elected); l.Outage.Failsafe {
			t.Errorf("at the moment of the loss: %+v", l.Outage)
		}
		time.Sleep(90 * time.Millisecond)
		back := time.Now()
		s.ask.set(n1, primary(3))
		s.levels()
		s.after(2*roundTakes, patroni.Promoting) // nothing is proven without the store
		var again bool
		for _, l := range s.levels() {
			if o := l.Outage; o.Failsafe {
				again = true
				if o.At.Before(back) {
					t.Errorf("lost until %v, by questions of %v", back, o.At)
				}
			}
		}
		if !again {
			t.Error("failsafe mode was not seen again")
		}
	})
}

func TestALossThatNobodySawInAnOutage(t *testing.T) {
	outage(t, func(s *scene, _ *apis) {
		// Lost and back before the consumer, busy with one level, takes another.
		start := time.Now()
		var back time.Time
		for l, err := range s.source.Watch(s.Context()) {
			switch {
			case err != nil:
				t.Fatal(err)
			case time.Since(start) > time.Minute:
				t.Fatalf("not in a minute; last %+v", l)
			case l.Phase == patroni.Writable && l.Stale == nil:
				s.store.SetDown(errDown)
			case l.Outage == nil || back.IsZero() && !l.Outage.Failsafe:
			case back.IsZero():
				s.ask.set(n1, lost())
				synctest.Wait()
				s.ask.set(n1, primary(3))
				time.Sleep(time.Second)
				back = time.Now()
			case !l.Outage.Failsafe:
				if l.Phase == patroni.Writable {
					t.Errorf("proven without the store: %+v", l)
				}
			default:
				if l.Outage.At.Before(back) {
					t.Errorf("back at %v, %+v", back, l.Outage)
				}
				return
			}
		}
	})
}

func TestAMemberIsAhead(t *testing.T) {
	outage(t, func(s *scene, _ *apis) {
		gone := func(name string) { s.remove("members/" + name) }
		defer s.watch()()
		s.after(time.Second, patroni.Writable)
		gone("n3") // and its server goes on
		s.fail()
		for what, p := range map[string]patroni.Proof{
			"the same timeline": primary(3), "a lower one": primary(2), "no primary": replica(4),
			"another database": {Writable: true, Timeline: 9, SystemID: "1"},
		} {
			s.ask.set(n3, p)
			if o := s.past(3 * roundTakes); !o.Failsafe || o.Ahead != "" {
				t.Errorf("%s: %+v", what, o)
			}
		}
		s.levels()
		s.ask.set(n3, primary(4))
		if o := s.past(time.Millisecond); o.Ahead != "n3" || o.Failsafe || !strings.Contains(o.Reason, "timeline 4") {
			t.Errorf("%+v", o)
		}
		s.ask.set(n3, lost())
		if o := s.past(time.Minute); o.Ahead != "n3" || o.Failsafe {
			t.Errorf("the member that was ahead is lost: %+v", o)
		}
		s.ask.set(n2, primary(5))
		if o := s.past(time.Millisecond); o.Ahead != "n2" {
			t.Errorf("another one is further: %+v", o)
		}
		s.ask.set(n2, replica(3))
		s.store.SetDown(nil)
		if l := s.after(250*time.Millisecond, patroni.Writable); l.Outage != nil {
			t.Errorf("%+v", l)
		}
		s.store.SetDown(errDown)
		if o := s.past(roundTakes); o.Ahead != "" || !o.Failsafe {
			t.Errorf("the next outage: %+v", o)
		}
	})
}

// The first round need not be over: another one hangs in it.
func TestAMemberIsAheadInTheFirstRound(t *testing.T) {
	outage(t, func(s *scene, r *apis) {
		r.hang(true)
		defer s.watch()()
		s.ask.set(n2, primary(4)) // promoted, and nobody has the key for it yet
		s.fail()
		down := time.Now()
		if o := s.past(2 * time.Millisecond); o.Ahead != "n2" || o.At.Before(down) {
			t.Errorf("%+v", o)
		}
	})
}

func TestTheHolderItselfIsAhead(t *testing.T) {
	outage(t, func(s *scene, _ *apis) {
		defer s.watch()()
		s.fail()
		s.past(roundTakes)
		s.ask.set(n1, primary(4)) // a crash, and a promotion in place
		if o := s.past(time.Millisecond); o.Ahead != "n1" || o.Failsafe {
			t.Errorf("%+v", o)
		}
	})
}

func TestTheKeyMovedBeforeTheOutage(t *testing.T) {
	outage(t, func(s *scene, r *apis) {
		r.set("10.0.0.2:8008", status("n2", "primary", 3, active))
		defer s.watch()()
		s.after(time.Second, patroni.Writable)
		s.remove("leader")
		s.put("leader", "n2")
		s.after(time.Second, patroni.Promoting)
		s.store.SetDown(errDown)
		if o := s.past(roundTakes); o.Failsafe || !strings.Contains(o.Reason, "n2 has taken the leader key") {
			t.Errorf("%+v", o)
		}
		s.ask.set(n2, primary(3)) // which no promotion makes
		if o := s.past(2 * roundTakes); o.Failsafe {
			t.Errorf("%+v", o)
		}
	})
}

func TestAnOutageOfAReadService(t *testing.T) {
	outage(t, func(s *scene, _ *apis) {
		s.source.Replicas = true
		s.member("n3", n3, `,"tags":{"noloadbalance":true}`)
		defer s.watch()()
		s.fail()
		if n := s.ask.running.Load(); n != 2 {
			t.Errorf("%d probes while the store answers", n)
		}
		if o := s.past(roundTakes); !o.Failsafe {
			t.Errorf("%+v", o)
		}
		if n := s.ask.running.Load(); n != 3 {
			t.Errorf("%d probes of three members", n)
		}
		if l := s.now(); len(l.Replicas) != 1 || !l.Replicas[0].Fresh {
			t.Errorf("%+v", l.Replicas)
		}
		s.ask.set(n2, primary(4))
		if o := s.past(time.Millisecond); o.Ahead != "n2" {
			t.Errorf("%+v", o)
		}
		s.store.SetDown(nil)
		time.Sleep(250 * time.Millisecond)
		s.now()
		if n := s.ask.running.Load(); n != 2 {
			t.Errorf("%d probes when the store is back", n)
		}
	})
}

// A member that nobody can reach makes a round long, and ends none.
func TestAMemberThatHangsInAnOutage(t *testing.T) {
	outage(t, func(s *scene, _ *apis) {
		s.source.Prober = deaf{s.ask}
		defer s.watch()()
		s.fail()
		down := time.Now()
		for time.Since(down) < 20*time.Second {
			if o := s.past(time.Second + roundTakes); !o.Failsafe || time.Since(o.At) > calm+time.Second+roundTakes {
				t.Fatalf("%v old: %+v", time.Since(o.At), o)
			}
		}
	})
}

// deaf is servers of which n3 never answers.
type deaf struct{ *servers }

func (d deaf) Probe(ctx context.Context, addr netip.AddrPort) iter.Seq[patroni.Proof] {
	if addr == n3 {
		return func(func(patroni.Proof) bool) { <-ctx.Done() }
	}
	return d.servers.Probe(ctx, addr)
}

// The request for another primary is told along, and two of them are told apart.
func TestARequestIsTold(t *testing.T) {
	stage(t, func(s *scene) {
		defer s.watch()()
		l := s.after(time.Second, patroni.Writable)
		if l.Failover != (patroni.Failover{}) || l.Requested != 0 {
			t.Errorf("%+v, %d", l.Failover, l.Requested)
		}
		var last uint64
		for range 2 {
			s.put("failover", `{"leader":"n1","member":"n2"}`)
			l = s.after(0, patroni.Writable) // at once
			if want := (patroni.Failover{Leader: "n1", Candidate: "n2"}); l.Failover != want || l.Requested <= last {
				t.Errorf("%+v, %d after %d", l.Failover, l.Requested, last)
			}
			last = l.Requested
		}
		s.put("failover", `{}`) // as Patroni takes it back
		if l = s.after(0, patroni.Writable); l.Failover != (patroni.Failover{}) || l.Requested != 0 {
			t.Errorf("%+v, %d", l.Failover, l.Requested)
		}
	})
}

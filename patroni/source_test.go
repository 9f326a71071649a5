package patroni_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/memory"
	"github.com/pgconvoy/pgconvoy/patroni"
)

func TestProofIsReadProbeRead(t *testing.T) {
	stage(t, func(s *scene) {
		start := time.Now()
		s.store.get = func(n int64) { time.Sleep(time.Second) }
		defer s.watch()()
		s.after(999*time.Millisecond, patroni.Promoting)
		s.after(1000*time.Millisecond, patroni.Promoting) // the second read is under way
		l := s.after(3*time.Millisecond, patroni.Writable)
		want := patroni.Epoch{SystemID: systemID, Timeline: 3}
		_, v := s.key("leader")
		if want.Created = v.Created; l.Epoch != want || l.Addr != n1 || l.Member != "n1" || l.API != "http://10.0.0.1:8008" {
			t.Errorf("%+v, want the epoch %v", l, want)
		}
		if !l.At.Equal(start) {
			t.Errorf("the proof began %v after the start", l.At.Sub(start))
		}
		if n := s.store.reads.Load(); n != 2 {
			t.Errorf("%d reads", n)
		}
	})
}

func TestWritableIsOneReadAfterTheAnswer(t *testing.T) {
	stage(t, func(s *scene) {
		s.ask.limit = 1 // the standing probe alone
		s.ask.set(n1, replica(3))
		s.store.get = func(int64) { time.Sleep(2 * time.Millisecond) }
		defer s.watch()()
		// 125 ms falls between two renewals of the first read, 250 ms onto one: its answer counts for the older read.
		for _, wait := range []time.Duration{125 * time.Millisecond, 250*time.Millisecond + 2*time.Millisecond} {
			if l := s.after(wait, patroni.Promoting); l.Reason != "n1 is in recovery" {
				t.Errorf("%+v", l)
			}
			s.ask.set(n1, primary(4))
			s.after(3*time.Millisecond+2*time.Millisecond, patroni.Writable) // the answer, a renewal under way, the read
			s.ask.set(n1, lost())
			s.now()
			s.ask.set(n1, replica(4))
		}
	})
}

func TestAnAnswerBeforeTheFirstReadDoesNotCount(t *testing.T) {
	stage(t, func(s *scene) {
		s.ask.rest, s.ask.limit = time.Hour, 1
		s.store.get = func(n int64) {
			if n == 1 {
				time.Sleep(time.Second) // the answer comes meanwhile
			}
		}
		defer s.watch()()
		s.after(30*time.Minute, patroni.Promoting)
		for _, l := range s.levels() {
			if l.Phase == patroni.Writable {
				t.Fatal("writable by an answer from before the read")
			}
		}
		s.after(31*time.Minute, patroni.Writable)
	})
}

// The first answer is asked for while the first read is under way, and arrives after it.
func TestAnAnswerThatIsJustTooOld(t *testing.T) {
	stage(t, func(s *scene) {
		s.ask.rest = time.Hour
		s.store.get = func(n int64) {
			if n == 1 {
				time.Sleep(700 * time.Microsecond)
			}
		}
		defer s.watch()()
		s.after(3*time.Millisecond, patroni.Writable)
	})
}

func TestAServerThatRestsIsAskedAtOnce(t *testing.T) {
	stage(t, func(s *scene) {
		s.ask.rest = time.Hour
		defer s.watch()()
		s.after(10*time.Millisecond, patroni.Writable)
		s.remove("leader")
		s.put("leader", "n1")
		s.now()
		s.after(2*time.Millisecond, patroni.Writable)
	})
}

func TestTheKeyIsMadeAnewBetweenTheReads(t *testing.T) {
	stage(t, func(s *scene) {
		_, old := s.key("leader")
		var young dcs.Version
		s.store.get = func(n int64) {
			if n == 2 {
				s.remove("leader")
				young = s.put("leader", "n1")
			}
		}
		defer s.watch()()
		l := s.after(time.Second, patroni.Writable)
		if l.Epoch.Created != young.Created || young.Created <= old.Created {
			t.Errorf("epoch %v, the key was made at %d, then at %d", l.Epoch, old.Created, young.Created)
		}
		for _, l := range s.levels() {
			if l.Epoch.Created == old.Created {
				t.Errorf("proven although the key was made anew: %+v", l)
			}
		}
	})
}

func TestALostProbe(t *testing.T) {
	stage(t, func(s *scene) {
		defer s.watch()()
		before := s.after(time.Second, patroni.Writable)
		s.ask.set(n1, lost())
		l := s.after(0, patroni.Elected) // at the same moment
		if !errors.Is(l.Proof.Err, errLost) || l.Addr != n1 || l.Epoch != before.Epoch || !strings.Contains(l.Reason, errLost.Error()) {
			t.Errorf("%+v", l)
		}
		loss := time.Now()
		s.after(5*time.Second, patroni.Elected)
		if n := s.store.reads.Load(); n > 2+5*5 {
			t.Errorf("%d reads while the server is lost for 5 s", n)
		}
		back := time.Now()
		s.ask.set(n1, primary(3))
		l = s.after(2*time.Millisecond, patroni.Writable)
		if !l.At.After(loss) || back.Sub(l.At) > 250*time.Millisecond || l.Epoch != before.Epoch {
			t.Errorf("lost at %v, back at %v, proven since %v as %v", loss, back, l.At, l.Epoch)
		}
	})
}

func TestALossThatNobodyLookedAt(t *testing.T) {
	stage(t, func(s *scene) {
		// Lost and back before the consumer, busy with one level, takes another.
		var loss time.Time
		for l, err := range s.source.Watch(s.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			if l.Phase != patroni.Writable {
				continue
			}
			if loss.IsZero() {
				time.Sleep(time.Second)
				loss = time.Now()
				s.ask.set(n1, lost())
				synctest.Wait()
				s.ask.set(n1, primary(3))
				time.Sleep(time.Second)
				continue
			}
			if !l.At.After(loss) {
				t.Errorf("proven since %v, lost at %v", l.At, loss)
			}
			break
		}
	})
}

func TestALossInTheMiddleOfAProof(t *testing.T) {
	stage(t, func(s *scene) {
		var loss time.Time
		s.store.get = func(n int64) {
			if n != 2 {
				return
			}
			time.Sleep(100 * time.Millisecond)
			loss = time.Now()
			s.ask.set(n1, lost())
			time.Sleep(100 * time.Millisecond)
			s.ask.set(n1, primary(3))
			time.Sleep(100 * time.Millisecond)
		}
		defer s.watch()()
		if l := s.after(time.Second, patroni.Writable); l.At.Before(loss) {
			t.Errorf("proven since %v, lost at %v", l.At, loss)
		}
	})
}

func TestAVacantKey(t *testing.T) {
	stage(t, func(s *scene) {
		defer s.watch()()
		before := s.after(time.Second, patroni.Writable)
		s.remove("leader")
		l := s.after(0, patroni.Vacant)
		if l.Member != "" || l.Addr != n1 || l.Epoch != before.Epoch || !l.Proof.Writable || l.API == "" {
			t.Errorf("%+v", l)
		}
		asked := l.Proof.At
		l = s.after(20*time.Second, patroni.Vacant)
		if !l.Proof.At.After(asked) || l.Proof.Err != nil {
			t.Errorf("the last holder is not asked any more: %+v", l.Proof)
		}
		s.ask.set(n1, lost())
		if l = s.after(0, patroni.Vacant); l.Proof.Err == nil {
			t.Error("the loss of the last holder is not told")
		}
		reads := s.store.reads.Load()
		s.after(20*time.Second, patroni.Vacant)
		if n := s.store.reads.Load() - reads; n > 1 {
			t.Errorf("%d reads while the key is vacant", n)
		}
		s.ask.set(n1, primary(3))
		s.after(time.Second, patroni.Vacant)
		s.put("leader", "n1")
		if l = s.after(10*time.Millisecond, patroni.Writable); l.Epoch.Created <= before.Epoch.Created {
			t.Errorf("epoch %v, before %v", l.Epoch, before.Epoch)
		}
	})
}

func TestAnotherHolder(t *testing.T) {
	stage(t, func(s *scene) {
		defer s.watch()()
		before := s.after(time.Second, patroni.Writable)
		s.remove("leader")
		s.put("leader", "n2")
		l := s.after(0, patroni.Elected)
		if l.Member != "n2" || l.Addr != n2 || l.Epoch != before.Epoch || l.Proof != (patroni.Proof{}) {
			t.Errorf("%+v", l)
		}
		s.after(time.Second, patroni.Promoting)
		s.ask.set(n2, primary(4))
		l = s.after(2*time.Millisecond, patroni.Writable)
		if l.Epoch.Compare(before.Epoch, false) != patroni.Newer || l.Epoch.Timeline != 4 {
			t.Errorf("epoch %v, before %v", l.Epoch, before.Epoch)
		}
	})
}

func TestAnotherTimeline(t *testing.T) {
	stage(t, func(s *scene) {
		defer s.watch()()
		s.after(time.Second, patroni.Writable)
		change := time.Now()
		s.ask.set(n1, primary(4)) // crash recovery and a promotion, the key stays
		l := s.after(3*time.Millisecond, patroni.Writable)
		if l.Epoch.Timeline != 4 || !l.At.After(change) {
			t.Errorf("%+v", l)
		}
		if levels := s.levels(); !slices.ContainsFunc(levels, func(l patroni.Leadership) bool { return l.Phase == patroni.Promoting && l.Epoch.Timeline == 3 }) {
			t.Error("the change was no doubt")
		}
	})
}

func TestTheStoreIsDown(t *testing.T) {
	stage(t, func(s *scene) {
		defer s.watch()()
		before := s.after(time.Second, patroni.Writable)
		s.store.SetDown(errDown)
		l := s.after(time.Minute, patroni.Writable)
		if !errors.Is(l.Stale, errDown) || l.Epoch != before.Epoch || l.Addr != n1 {
			t.Errorf("%+v", l)
		}
		s.ask.set(n1, lost())
		s.after(0, patroni.Elected)
		s.ask.set(n1, primary(3))
		l = s.after(time.Minute, patroni.Promoting) // nothing is proven without the store
		if l.Member != "n1" || l.Addr != n1 || !strings.Contains(l.Reason, errDown.Error()) {
			t.Errorf("%+v", l)
		}
		for _, l := range s.levels() {
			if l.Phase == patroni.Vacant || l.Phase == patroni.Unknown && l.Epoch == before.Epoch {
				t.Errorf("the outage became %v", l.Phase)
			}
		}
		s.store.SetDown(nil)
		if l = s.after(250*time.Millisecond, patroni.Writable); l.Stale != nil {
			t.Errorf("%+v", l)
		}
	})
}

func TestTheStoreWasNeverUp(t *testing.T) {
	stage(t, func(s *scene) {
		s.store.SetDown(errDown)
		defer s.watch()()
		if l := s.after(time.Minute, patroni.Unknown); !errors.Is(l.Stale, errDown) || l.Reason != errDown.Error() {
			t.Errorf("%+v", l)
		}
		s.store.SetDown(nil)
		s.after(250*time.Millisecond, patroni.Writable)
	})
}

func TestAMemberKeyThatIsAway(t *testing.T) {
	stage(t, func(s *scene) {
		defer s.watch()()
		before := s.after(time.Second, patroni.Writable)
		still := func(what string) {
			t.Helper()
			l := s.after(time.Second, patroni.Writable)
			if l.Addr != n1 || l.API != before.API || !l.At.Equal(before.At) {
				t.Errorf("%s: %+v", what, l)
			}
		}
		s.remove("members/n1")
		still("without the key")
		s.put("members/n1", `{"state":"stopped"}`)
		still("without an address")
		s.put("members/n1", `{"conn_url":`)
		still("broken")
		s.member("n1", n1)
		still("back")
		if n := s.ask.begun.Load(); n > 2 {
			t.Errorf("%d probes were begun", n)
		}
		s.member("n1", n3)
		s.after(0, patroni.Elected)
		s.ask.set(n3, primary(3))
		if l := s.after(10*time.Millisecond, patroni.Writable); l.Addr != n3 {
			t.Errorf("%+v", l)
		}
	})
}

func TestTheProxyIsTheRoute(t *testing.T) {
	stage(t, func(s *scene) {
		s.member("n1", n1, `,"proxy_url":"postgres://10.0.0.1:6000/postgres"`)
		s.source.Replicas = true
		s.member("n2", n2, `,"proxy_url":"postgres://10.0.0.2:6000/postgres"`)
		defer s.watch()()
		l := s.after(time.Second, patroni.Writable)
		if want := netip.MustParseAddrPort("10.0.0.1:6000"); l.Addr != want {
			t.Errorf("%v, want %v", l.Addr, want)
		}
		if want := netip.MustParseAddrPort("10.0.0.2:6000"); l.Replicas[0].Addr != want {
			t.Errorf("%v, want %v", l.Replicas[0].Addr, want)
		}
		s.member("n2", n2, `,"proxy_url":"postgres://10.0.0.2:6001/postgres"`)
		if l = s.now(); l.Replicas[0].Addr.Port() != 6001 {
			t.Errorf("the proxy of a replica has moved: %v", l.Replicas[0].Addr)
		}
		// A proxy that cannot be found is not gone around.
		s.member("n1", n1, `,"proxy_url":"postgres://proxy:6000/postgres"`)
		if l = s.after(0, patroni.Elected); l.Addr.IsValid() || !strings.Contains(l.Reason, "proxy:6000") {
			t.Errorf("%+v", l)
		}
	})
}

func TestHostNames(t *testing.T) {
	stage(t, func(s *scene) {
		s.put("members/n1", `{"conn_url":"postgres://db1:5432/postgres"}`)
		stop := s.watch()
		if l := s.after(time.Second, patroni.Elected); !strings.Contains(l.Reason, "db1:5432 is not a literal address") {
			t.Errorf("%+v", l)
		}
		stop()
		var fails atomic.Bool
		s.source.Resolve = func(_ context.Context, host string) (netip.Addr, error) {
			if fails.Load() || host != "db1" {
				return netip.Addr{}, errors.New("no such host")
			}
			return n1.Addr(), nil
		}
		defer s.watch()()
		before := s.after(time.Second, patroni.Writable)
		fails.Store(true)
		s.put("members/n1", `{"conn_url":"postgres://db1:5432/postgres","state":"running"}`)
		if l := s.after(time.Second, patroni.Writable); l.Addr != n1 || !l.At.Equal(before.At) {
			t.Errorf("while names cannot be resolved: %+v", l)
		}
		s.put("members/n1", `{"conn_url":"postgres://db9:5432/postgres"}`)
		if l := s.after(time.Second, patroni.Elected); l.Addr.IsValid() || !strings.Contains(l.Reason, "no such host") {
			t.Errorf("%+v", l)
		}
	})
}

func TestReplicas(t *testing.T) {
	stage(t, func(s *scene) {
		s.source.Replicas = true
		s.member("n3", n3)
		s.ask.set(n3, replica(3))
		defer s.watch()()
		s.after(time.Second, patroni.Writable)
		fresh := func(what string, want ...string) {
			t.Helper()
			var got []string
			for _, r := range s.now().Replicas {
				name := r.Member
				if !r.Fresh {
					name = "(" + name + ")"
				}
				got = append(got, name)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: %v, want %v", what, got, want)
			}
		}
		fresh("all stream", "n2", "n3")
		s.ask.set(n3, replica(2))
		time.Sleep(time.Millisecond)
		fresh("another timeline", "n2", "(n3)")
		s.ask.set(n3, replica(0))
		time.Sleep(time.Millisecond)
		fresh("does not stream", "n2", "(n3)")
		s.ask.set(n3, patroni.Proof{Timeline: 3, SystemID: "1"})
		time.Sleep(time.Millisecond)
		fresh("another database", "n2", "(n3)")
		s.ask.set(n3, primary(3))
		time.Sleep(time.Millisecond)
		fresh("writable", "n2", "(n3)")
		s.ask.set(n3, replica(3))
		time.Sleep(time.Millisecond)
		fresh("well again", "n2", "n3")

		s.remove("members/n3")
		time.Sleep(time.Second)
		fresh("the key is away and it answers", "n2", "n3")
		s.ask.set(n3, lost())
		fresh("and now it does not", "n2")
		s.member("n3", n3)
		s.ask.set(n3, replica(3))
		time.Sleep(time.Millisecond)
		fresh("back", "n2", "n3")
		s.member("n3", n3, `,"tags":{"noloadbalance":true}`)
		fresh("tagged", "n2")

		s.ask.set(n1, lost())
		fresh("the primary is lost", "n2")
		s.remove("leader")
		s.put("leader", "n2")
		fresh("a replica was elected", "(n1)")
	})
}

func TestTwoRangesAreIndependent(t *testing.T) {
	stage(t, func(s *scene) {
		defer s.watch()()
		early := s.after(time.Second, patroni.Writable)
		for l, err := range s.source.Watch(s.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			if l.Phase == patroni.Writable {
				if !l.At.After(early.At) {
					t.Errorf("proven since %v as the other one, %v", l.At, early.At)
				}
				break
			}
		}
		if l := s.after(time.Second, patroni.Writable); !l.At.Equal(early.At) {
			t.Error("the end of one range was a doubt for the other")
		}
	})
}

func TestWhatIsNeverWritable(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(s *scene)
		phase  patroni.Phase
		reason string
	}{
		{"no prober", func(s *scene) { s.source.Prober = nil }, patroni.Elected, "no prober"},
		{"another database", func(s *scene) { s.put("initialize", "1") }, patroni.Promoting, "the cluster is 1"},
		{"no identity", func(s *scene) { s.ask.set(n1, patroni.Proof{Writable: true}) }, patroni.Promoting, "without a system identifier"},
		{"in recovery", func(s *scene) { s.ask.set(n1, replica(3)) }, patroni.Promoting, "in recovery"},
		{"a standby cluster", func(s *scene) { s.put("config", `{"standby_cluster":{"host":"10.1.0.1"}}`) }, patroni.Elected, "standby cluster"},
		{"an unknown address", func(s *scene) { s.remove("members/n1") }, patroni.Elected, "address of n1 is not known"},
		{"nobody", func(s *scene) { s.remove("leader") }, patroni.Vacant, "nobody"},
		{"a prober that ends", func(s *scene) { s.source.Prober = brief{} }, patroni.Elected, "ended by itself"},
	} {
		t.Run(c.name, func(t *testing.T) {
			stage(t, func(s *scene) {
				c.change(s)
				defer s.watch()()
				time.Sleep(10 * time.Second)
				for _, l := range s.levels() {
					if l.Phase == patroni.Writable {
						t.Fatalf("writable: %+v", l)
					}
				}
				if l := s.after(time.Second, c.phase); !strings.Contains(l.Reason, c.reason) {
					t.Errorf("%q", l.Reason)
				}
			})
		})
	}
}

// brief breaks the contract of a Prober.
type brief struct{}

func (brief) Probe(context.Context, netip.AddrPort) iter.Seq[patroni.Proof] {
	return func(yield func(patroni.Proof) bool) {
		p := primary(3)
		p.At = time.Now()
		yield(p)
	}
}

func TestAPrimaryBecomesAStandbyCluster(t *testing.T) {
	stage(t, func(s *scene) {
		defer s.watch()()
		s.after(time.Second, patroni.Writable)
		s.put("config", `{"standby_cluster":{"host":"10.1.0.1"}}`)
		if l := s.after(0, patroni.Elected); !l.Proof.Writable || l.Addr != n1 {
			t.Errorf("%+v", l)
		}
		s.put("config", `{}`)
		s.after(10*time.Millisecond, patroni.Writable)
	})
}

func TestTheConfigurationIsToldAlong(t *testing.T) {
	stage(t, func(s *scene) {
		defer s.watch()()
		s.after(time.Second, patroni.Writable)
		s.put("config", `{"pause":true,"ttl":20}`)
		if l := s.after(0, patroni.Writable); !l.Paused || l.TTL != 20*time.Second {
			t.Errorf("%+v", l)
		}
	})
}

func TestLevelsRepeat(t *testing.T) {
	stage(t, func(s *scene) {
		defer s.watch()()
		s.after(time.Second, patroni.Writable)
		s.levels()
		time.Sleep(10 * time.Second)
		if n := len(s.levels()); n < 39 || n > 41 {
			t.Errorf("%d levels in 10 s when nothing happens", n)
		}
	})
}

func TestHowAWatchEnds(t *testing.T) {
	noGoroutines(t)
	why := errors.New("why")
	end := func(ctx context.Context, s *patroni.Source) (last error) {
		for _, err := range s.Watch(ctx) {
			last = err
		}
		return last
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if err := end(ctx, &patroni.Source{Store: memory.New(), Path: path}); !errors.Is(err, why) {
		t.Errorf("the end of ctx: %v", err)
	}
	if err := end(t.Context(), &patroni.Source{Store: memory.New(), Path: "demo"}); !errors.Is(err, dcs.ErrInvalid) {
		t.Errorf("a bad path: %v", err)
	}
	if err := end(t.Context(), &patroni.Source{Path: path}); err == nil {
		t.Error("no store, no error")
	}
	if err := end(t.Context(), &patroni.Source{Store: silent{memory.New()}, Path: path}); err == nil {
		t.Error("a store's watch that ends without a reason, no error")
	}
	func() {
		defer func() {
			if p, ok := recover().(error); !ok || !errors.Is(p, why) {
				t.Errorf("recovered %v", p)
			}
		}()
		for range (&patroni.Source{Store: memory.New(), Path: path}).Watch(t.Context()) {
			panic(why)
		}
	}()
}

// silent breaks the contract of a Reader.
type silent struct{ *memory.Store }

func (silent) Watch(context.Context, string) iter.Seq2[dcs.Snapshot, error] {
	return func(func(dcs.Snapshot, error) bool) {}
}

func TestPhaseAndOrderHaveNames(t *testing.T) {
	got := fmt.Sprint(patroni.Unknown, patroni.Vacant, patroni.Elected, patroni.Promoting, patroni.Writable, patroni.Phase(9),
		patroni.Same, patroni.Newer, patroni.Older, patroni.Rebuilt, patroni.Foreign, patroni.Order(-1))
	if want := "unknown vacant elected promoting writable 9 same newer older rebuilt store foreign database -1"; got != want {
		t.Errorf("%s", got)
	}
}

package topology

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/memory"
	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
)

// A primary whose node is dead is fenced after After, once, and its claim is ended: its lease, and not only the key.
func TestFence(t *testing.T) {
	inFenceBubble(t, func(b *fenceBench) {
		b.run(b.fencing("f1"))
		b.wait(time.Minute)
		b.asked(0)
		b.kill()
		b.wait(2900 * time.Millisecond)
		b.asked(0)
		b.holds(true)
		b.wait(time.Second)
		b.asked(1)
		b.holds(false)
		attempt := b.outcomes(record.FenceEnded)[0]
		if attempt.Member != "n1" || attempt.By != "f1" || attempt.Epoch != b.lead.Epoch || attempt.Error != "" {
			t.Errorf("the attempt is %+v", attempt)
		}
		b.wait(20 * time.Second)
		select {
		case <-b.lost:
		default:
			t.Error("the holder is not told that its lease is over")
		}
		if _, err := b.node.Put(b.Context(), demo+"/leader", []byte("n1"), dcs.Version{}); !errors.Is(err, dcs.ErrLeaseLost) {
			t.Errorf("the holder writes: %v", err)
		}
		b.wait(time.Hour)
		b.asked(1)
	})
}

// What is not confirmed changes nothing, whatever else it says; and it is not tried again at once.
func TestFenceUnconfirmed(t *testing.T) {
	inFenceBubble(t, func(b *fenceBench) {
		b.fencer.err = errNoPower
		b.run(b.fencing("f1"))
		b.kill()
		b.wait(time.Minute)
		b.asked(1)
		b.holds(true)
		if a := b.outcomes(record.FenceUnconfirmed)[0]; !strings.Contains(a.Error, errNoPower.Error()) {
			t.Errorf("the attempt is %+v", a)
		}
		b.wait(8 * time.Minute)
		b.asked(1)
		b.wait(2 * time.Minute)
		b.asked(2)
		b.holds(true)
		b.outcomes(record.FenceUnconfirmed, record.FenceUnconfirmed)
	})
}

// A confirmation that comes when its time is over is none, and a Fencer that hangs is told to end.
func TestFenceBound(t *testing.T) {
	for _, heeds := range []bool{true, false} {
		inFenceBubble(t, func(b *fenceBench) {
			b.fencer.takes, b.fencer.heeds = time.Minute, heeds
			f := b.fencing("f1")
			f.Bound = 5 * time.Second
			b.run(f)
			b.kill()
			b.wait(2 * time.Minute)
			b.asked(1)
			b.holds(true)
			b.outcomes(record.FenceUnconfirmed)
		})
	}
}

// A claim that has changed while the node was fenced is not ended, nor is one of a cluster that somebody has paused.
func TestFenceLate(t *testing.T) {
	for what, during := range map[string]func(b *fenceBench){
		"the holder wrote": func(b *fenceBench) {
			if _, err := b.node.Put(b.Context(), demo+"/leader", []byte("n1"), b.claim); err != nil {
				b.Error(err)
			}
		},
		"paused": func(b *fenceBench) { b.replace("config", `{"ttl":30,"synchronous_mode":true,"pause":true}`) },
		"it answers": func(b *fenceBench) {
			b.back()
			time.Sleep(time.Second)
		},
		"standby": func(b *fenceBench) { b.replace("config", `{"synchronous_mode":true,"standby_cluster":{"host":"x"}}`) },
	} {
		t.Run(what, func(t *testing.T) {
			inFenceBubble(t, func(b *fenceBench) {
				b.fencer.during = func(patroni.Member) { during(b) }
				b.run(b.fencing("f1"))
				b.kill()
				b.wait(time.Minute)
				b.asked(1)
				b.holds(true)
				b.outcomes(record.FenceLate)
			})
		})
	}
}

// replace writes a key of Patroni's; without synctest.Wait it may be called from anywhere.
func (b *fenceBench) replace(name, value string) {
	s, err := b.store.Get(b.Context(), demo)
	if err != nil {
		b.Error(err)
	}
	e, _ := s.Get(demo + "/" + name)
	if _, err := b.store.Put(b.Context(), demo+"/"+name, []byte(value), e.Version); err != nil {
		b.Error(err)
	}
}

// One fencer at a time: who finds the lock held asks nobody.
func TestFenceLocked(t *testing.T) {
	inFenceBubble(t, func(b *fenceBench) {
		release, done := make(chan struct{}), make(chan error, 1)
		go func() {
			done <- dcs.Lock(b.Context(), b.store, record.FenceKey(demo), []byte("another"), func(context.Context, dcs.Writer, dcs.Version) error {
				<-release
				return nil
			})
		}()
		b.run(b.fencing("f1"))
		b.kill()
		b.wait(time.Minute)
		b.asked(0)
		b.outcomes()
		close(release)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		b.wait(5 * time.Second)
		b.asked(1)
		b.holds(false)
	})
}

// Of several that see the same death one acts.
func TestFenceOfSeveral(t *testing.T) {
	inFenceBubble(t, func(b *fenceBench) {
		b.fencer.takes, b.fencer.err = 3*time.Second, errNoPower
		for i := range 5 {
			b.run(b.fencing(fmt.Sprintf("f%d", i)))
		}
		b.kill()
		b.wait(5 * time.Minute)
		b.asked(1)
		b.outcomes(record.FenceUnconfirmed)
	})
}

// An attempt of a process that died over it counts as one, and so does one that seems to be of the future.
func TestFenceAfterACrash(t *testing.T) {
	for _, ago := range []time.Duration{time.Minute, -time.Hour} {
		inFenceBubble(t, func(b *fenceBench) {
			old := record.Fences{}.With(record.Fence{At: time.Now().Add(-ago), By: "gone", Member: "n3", Outcome: record.FenceBegun})
			b.put(record.FencesKey(demo), record.Encode(&old))
			b.run(b.fencing("f1"))
			b.kill()
			b.wait(5 * time.Minute)
			b.asked(0)
			b.holds(true)
			b.wait(10*time.Minute - ago)
			b.asked(1)
			b.outcomes(record.FenceBegun, record.FenceEnded)
		})
	}
}

// The attempt is written down before the Fencer is asked; where that cannot be, it is not asked.
func TestFenceIsWrittenDownFirst(t *testing.T) {
	inFenceBubble(t, func(b *fenceBench) {
		b.fencer.during = func(patroni.Member) {
			s, err := b.store.Get(b.Context(), record.Dir(demo))
			if all, _, ferr := record.FencesOf(s, demo); err != nil || ferr != nil || len(all.Fences) != 1 || all.Fences[0].Outcome != record.FenceBegun {
				t.Errorf("meanwhile the attempts are %+v, %v, %v", all, err, ferr)
			}
		}
		b.put(record.FencesKey(demo), []byte(`{"v":99}`)) // of a newer program
		b.run(b.fencing("f1"))
		b.kill()
		b.wait(time.Minute)
		b.asked(0)
		b.remove(record.FencesKey(demo))
		b.wait(5 * time.Second)
		b.asked(1)
		b.outcomes(record.FenceEnded)
	})
}

// Whoever gives any answer is alive, and a silence with a break is two silences.
func TestFenceSparesTheLiving(t *testing.T) {
	for what, f := range map[string]func(b *fenceBench){
		"Patroni answers": func(b *fenceBench) {
			b.kill()
			b.rests("n1:8008", nil)
		},
		"Patroni answers with an error": func(b *fenceBench) {
			b.kill()
			b.mu.Lock()
			delete(b.status, "n1:8008")
			b.mu.Unlock()
			b.rests("n1:8008", nil)
		},
		"PostgreSQL has no room": func(b *fenceBench) {
			b.kill()
			b.refuses("53300")
		},
		"PostgreSQL is starting when we ask once more": func(b *fenceBench) {
			b.kill()
			b.prober.set(addr1, patroni.Proof{Err: refusedBy("57P03")})
		},
		"PostgreSQL answers": func(b *fenceBench) { b.rests("n1:8008", errOff) },
		"PostgreSQL answers whom we ask once more": func(b *fenceBench) {
			b.kill()
			b.prober.set(addr1, b.lead.Proof)
		},
		"it comes back again and again": func(b *fenceBench) {
			for range 20 {
				b.kill()
				b.wait(2500 * time.Millisecond)
				b.back()
				b.wait(10 * time.Millisecond)
			}
		},
		"Patroni alone comes back again and again": func(b *fenceBench) {
			for range 20 {
				b.kill()
				b.wait(2500 * time.Millisecond)
				b.rests("n1:8008", nil)
				b.wait(300 * time.Millisecond)
			}
		},
		"the store is down": func(b *fenceBench) {
			b.store.SetDown(errors.New("no quorum"))
			l := dead(b.lead)
			l.Stale = errors.New("no quorum")
			b.kill()
			b.leads.set(l)
			b.wait(20 * time.Second)
			b.back()
			b.store.SetDown(nil)
		},
		"the watch is stale": func(b *fenceBench) {
			b.kill()
			l := dead(b.lead)
			l.Stale = errors.New("no connection")
			b.leads.set(l)
		},
		"the standby is dead, too": func(b *fenceBench) {
			b.kill()
			b.prober.set(addr2, patroni.Proof{Err: errDead})
		},
		"the standby's Patroni is dead, too": func(b *fenceBench) {
			b.kill()
			b.rests("n2:8008", errOff)
		},
		"the key was given up": func(b *fenceBench) {
			b.kill()
			l := dead(b.lead)
			l.Phase, l.Member = patroni.Vacant, ""
			b.leads.set(l)
		},
		"no REST address is known": func(b *fenceBench) {
			b.kill()
			l := dead(b.lead)
			l.API = ""
			b.leads.set(l)
		},
	} {
		t.Run(what, func(t *testing.T) {
			inFenceBubble(t, func(b *fenceBench) {
				b.run(b.fencing("f1"))
				f(b)
				b.wait(25 * time.Second)
				b.asked(0)
				b.outcomes()
			})
		})
	}
}

// refuses has n1's PostgreSQL answer with an error of its own; its Patroni stays silent.
func (b *fenceBench) refuses(code string) {
	l := dead(b.lead)
	l.Proof.Err = refusedBy(code)
	b.prober.set(addr1, patroni.Proof{Err: l.Proof.Err})
	b.leads.set(l)
}

func refusedBy(code string) error {
	return fmt.Errorf("patroni: no connection to n1: %w", &pgconn.PgError{Severity: "FATAL", Code: code, Message: "not now"})
}

// One that has answered with an error and is dead afterwards is dead from then on.
func TestFenceAfterALastWord(t *testing.T) {
	inFenceBubble(t, func(b *fenceBench) {
		b.run(b.fencing("f1"))
		b.kill()
		b.wait(2 * time.Second)
		b.refuses("57P01")
		b.wait(2 * time.Second)
		b.asked(0)
		b.kill()
		b.wait(2900 * time.Millisecond)
		b.asked(0)
		b.wait(time.Second)
		b.asked(1)
	})
}

// An unconfirmed end is the caller's end, too.
func TestFenceEndsWithItsContext(t *testing.T) {
	inFenceBubble(t, func(b *fenceBench) {
		b.fencer.takes, b.fencer.heeds = time.Minute, true
		stop := b.run(b.fencing("f1"))
		b.kill()
		b.wait(10 * time.Second)
		b.asked(1)
		stop()
		b.holds(true)
		b.outcomes(record.FenceUnconfirmed)
	})
}

// The end of the leadership's watch is an error, not a silence.
func TestFencingEndsWithItsWatch(t *testing.T) {
	inFenceBubble(t, func(b *fenceBench) {
		why := errors.New("why")
		b.leads.endWith(why)
		if err := b.fencing("f1").Run(b.Context()); !errors.Is(err, why) {
			t.Errorf("Run returned %v", err)
		}
	})
}

// Each reason not to fence, one at a time.
func TestFenceRefusals(t *testing.T) {
	good := func() *fenceCase {
		epoch := patroni.Epoch{SystemID: "7", Timeline: 3, Created: 100}
		heir := patroni.Member{Name: "n2", Host: addr2.String()}
		return &fenceCase{
			lead: patroni.Leadership{Member: "n1", Addr: addr1, Epoch: epoch},
			cluster: patroni.Cluster{
				Leader: "n1", LeaderVersion: dcs.Version{Created: 100, Modified: 100}, SystemID: "7",
				Members: []patroni.Member{{Name: "n1"}, heir},
				Config:  patroni.Config{Synchronous: "on"}, Sync: patroni.Sync{Leader: "n1", Standbys: []string{"n2"}},
			},
			heirs: []fenceHeir{{
				name: "n2", member: heir, proof: patroni.Proof{SystemID: "7", Timeline: 3},
				status: patroni.Status{State: "running", Role: patroni.RoleReplica, Timeline: 3},
			}},
			now: time.Unix(1e9, 0), every: time.Minute,
		}
	}
	if why := good().refusal(); why != "" {
		t.Fatalf("refused: %s", why)
	}
	attempt := func(ago time.Duration) record.Fences {
		return record.Fences{}.With(record.Fence{At: time.Unix(1e9, 0).Add(-ago), Member: "n3", By: "f2"})
	}
	second := func(c *fenceCase) { c.heirs = append(c.heirs, c.heirs[0]) }
	for _, c := range []struct {
		want   string // part of the refusal; empty: none
		change func(c *fenceCase)
	}{
		{"not current", func(c *fenceCase) { c.lead.Stale = errDead }},
		{"nobody holds", func(c *fenceCase) { c.cluster.Leader = "" }},
		{"names n2", func(c *fenceCase) { c.cluster.Leader = "n2" }},
		{"never proven", func(c *fenceCase) { c.cluster.LeaderVersion.Created = 101 }},
		{"never proven", func(c *fenceCase) { c.lead.Epoch, c.cluster.LeaderVersion.Created = patroni.Epoch{}, 0 }},
		{"same database", func(c *fenceCase) { c.cluster.SystemID = "8" }},
		{"not known", func(c *fenceCase) { c.cluster.Members = c.cluster.Members[1:] }},
		{"paused", func(c *fenceCase) { c.cluster.Config.Paused = true }},
		{"paused", func(c *fenceCase) { c.lead.Paused = true }},
		{"standby cluster", func(c *fenceCase) { c.cluster.Config.StandbyCluster = true }},
		{"not synchronous", func(c *fenceCase) { c.cluster.Config.Synchronous = "" }},
		{"standbys are those of", func(c *fenceCase) { c.cluster.Sync.Leader = "n3" }},
		{"Patroni answers", func(c *fenceCase) { c.awake = "n1's Patroni" }},
		{"n3 was fenced by f2", func(c *fenceCase) { c.fences = attempt(59 * time.Second) }},
		{"n3 was fenced by f2", func(c *fenceCase) { c.fences = attempt(-time.Hour) }},
		{"", func(c *fenceCase) { c.fences = attempt(time.Minute) }},
		{"there is none", func(c *fenceCase) { c.heirs = nil }},
		{"no member key", func(c *fenceCase) { c.heirs[0].member = patroni.Member{} }},
		{"tagged", func(c *fenceCase) { c.heirs[0].member.Tags = map[string]any{"nofailover": true} }},
		{"tagged", func(c *fenceCase) { c.heirs[0].member.Tags = map[string]any{"failover_priority": 0.0} }},
		{"", func(c *fenceCase) { c.heirs[0].member.Tags = map[string]any{"failover_priority": 1.0} }},
		{"does not answer", func(c *fenceCase) { c.heirs[0].proof.Err = errDead }},
		{"not in recovery", func(c *fenceCase) { c.heirs[0].proof.Writable = true }},
		{"another database", func(c *fenceCase) { c.heirs[0].proof.SystemID = "8" }},
		{"timeline 2", func(c *fenceCase) { c.heirs[0].proof.Timeline = 2 }},
		{"", func(c *fenceCase) { c.heirs[0].proof.Timeline = 0 }},
		{"Patroni that does not answer", func(c *fenceCase) { c.heirs[0].err = errDead }},
		{"is starting", func(c *fenceCase) { c.heirs[0].status.State = "starting" }},
		{"as primary", func(c *fenceCase) { c.heirs[0].status.Role = patroni.RolePrimary }},
		{"timeline 0", func(c *fenceCase) { c.heirs[0].status.Timeline = 0 }},
		{"paused", func(c *fenceCase) { c.heirs[0].status.Paused = true }},
		{"", func(c *fenceCase) { second(c); c.heirs[0].err = errDead }},
		{"(1 of 2)", func(c *fenceCase) { c.cluster.Config.Synchronous, c.cluster.Sync.Quorum = "quorum", 1 }},
		{"", func(c *fenceCase) { second(c); c.cluster.Config.Synchronous, c.cluster.Sync.Quorum = "quorum", 1 }},
	} {
		it := good()
		c.change(it)
		if why := it.refusal(); (why == "") != (c.want == "") || !strings.Contains(why, c.want) {
			t.Errorf("refused with %q, want %q", why, c.want)
		}
	}
}

// No answer at all is silence; whatever else came, or could not be asked, is not.
func TestUnanswered(t *testing.T) {
	in := func(err error) error {
		return fmt.Errorf("patroni: %w", &url.Error{Op: "Get", URL: "http://n1:8008", Err: err})
	}
	for _, c := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{in(errOff), true},
		{in(&net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH}), true},
		{in(context.DeadlineExceeded), true},
		{in(io.EOF), true},
		{in(&net.OpError{Op: "read", Err: syscall.ECONNRESET}), true},
		{in(context.Canceled), false},
		{in(x509.UnknownAuthorityError{}), false},
		{in(&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", IsNotFound: true}}), false},
		{&patroni.Error{Method: http.MethodGet, Status: http.StatusServiceUnavailable}, false},
		{fmt.Errorf("patroni: the answer broke off: %w", io.ErrUnexpectedEOF), false},
		{errDead, false},
	} {
		if got := unanswered(c.err); got != c.want {
			t.Errorf("%v: %v, want %v", c.err, got, c.want)
		}
	}
}

func TestValidateFencing(t *testing.T) {
	good := func() *Fencing {
		return &Fencing{Cluster: Cluster{Path: demo, Store: memory.New(), Prober: &fakeProber{}}, Name: "f1", Fencer: &fakeFencer{}}
	}
	refuses(t, good().Validate())
	for field, change := range map[string]func(*Fencing){
		"Fencing.Path":         func(f *Fencing) { f.Path = "demo" },
		"Fencing.Store is":     func(f *Fencing) { f.Store = nil },
		"Fencing.Store cannot": func(f *Fencing) { f.Store = struct{ dcs.Store }{memory.New()} },
		"Fencing.Prober":       func(f *Fencing) { f.Prober = nil },
		"Fencing.Prober is":    func(f *Fencing) { f.Prober, f.Leaders = nil, &fakeLeaders{} },
		"Fencing.Name":         func(f *Fencing) { f.Name = "a/b" },
		"Fencing.Fencer":       func(f *Fencing) { f.Fencer = nil },
		"Fencing.After":        func(f *Fencing) { f.After = -1 },
		"Fencing.Every":        func(f *Fencing) { f.Every = -1 },
		"Fencing.Bound":        func(f *Fencing) { f.Bound = -1 },
	} {
		f := good()
		change(f)
		refuses(t, f.Validate(), field)
		if err := f.Run(t.Context()); err == nil {
			t.Errorf("%s: Run took it", field)
		}
	}
}

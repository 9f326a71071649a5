package topologytest_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/leak"
	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/topology"
	"github.com/pgconvoy/pgconvoy/topology/local"
	"github.com/pgconvoy/pgconvoy/topology/topologytest"
)

// few are faults of all kinds: with and without choices, with and without an undo, and a Hold.
func few() []topologytest.Fault {
	frozen := topologytest.FreezePrimary()
	frozen.Hold = [2]time.Duration{5 * time.Second, 5 * time.Second}
	return []topologytest.Fault{
		topologytest.KillPrimary(), topologytest.KillPooler(), topologytest.KillAgent(), topologytest.KillPatroni(), frozen,
	}
}

// TestChaosSequence: what a seed stands for stays what it is. To change this is to change what every seed means that
// somebody has written down.
func TestChaosSequence(t *testing.T) {
	leak.Check(t)
	const want = `
KillPooler (kill pgb-2), held for 397ms, routed 0s later
KillPooler (kill pgb-3), held for 909ms, routed 0s later
KillAgent (kill pgb-3/agent), held for 1.287s, routed 0s later
KillAgent (kill pgb-3/agent), held for 2.505s, routed 0s later
KillPrimary (kill n1/postgres), held for 2.017s, routed 0s later
KillPooler (kill pgb-3), held for 1.077s, routed 0s later
FreezePrimary (freeze n1/postgres), held for 5s, routed 0s later
KillPatroni (kill n2/patroni), held for 2.631s, routed 0s later
20.326s in all
`
	got := "\n"
	onToy(t, &toy{}, topologytest.Options{}, func(s *topologytest.Stack) {
		began := time.Now()
		for _, step := range s.Chaos(6, 20*time.Second, few()...) {
			got += step.String() + "\n"
		}
		got += time.Since(began).Round(time.Millisecond).String() + " in all\n" // with the pauses
	})
	if got != want {
		t.Errorf("seed 6 stands for:%s\nwant:%s", got, want)
	}
}

// TestChaosRepeats: the sequence depends on the seed and the faults, and on nothing that happens.
func TestChaosRepeats(t *testing.T) {
	leak.Check(t)
	run := func(o *toy, seed uint64, d time.Duration, faults ...topologytest.Fault) []topologytest.Step {
		var steps []topologytest.Step
		out := onToy(t, o, topologytest.Options{}, func(s *topologytest.Stack) { steps = s.Chaos(seed, d, faults...) })
		if out.failed {
			t.Fatal(out.log.String())
		}
		for i := range steps {
			steps[i].Recovery = 0 // a matter of the stack
		}
		return steps
	}
	first := run(&toy{}, 1, time.Minute, few()...)
	if len(first) < 10 {
		t.Fatalf("a minute has %d steps", len(first))
	}
	prefix := func(what string, short, long []topologytest.Step) {
		t.Helper()
		if len(short) == 0 || len(short) >= len(long) || !slices.Equal(short, long[:len(short)]) {
			t.Errorf("%s: %v\nis not the beginning of\n%v", what, short, long)
		}
	}
	if again := run(&toy{}, 1, time.Minute, few()...); !slices.Equal(again, first) {
		t.Errorf("%v\nis not\n%v", again, first)
	}
	if other := run(&toy{}, 2, time.Minute, few()...); slices.Equal(other[:5], first[:5]) {
		t.Errorf("two seeds mean the same: %v", other)
	}
	prefix("less time", run(&toy{}, 1, 20*time.Second, few()...), first)
	prefix("hardly any time", run(&toy{}, 1, 1, few()...), first)
	prefix("a slow stack", run(&toy{slow: 2 * time.Second}, 1, time.Minute, few()...), first)

	greedy := few() // draws as much as it likes
	for i, f := range greedy {
		greedy[i].Inject = func(s *topologytest.Stack, r *rand.Rand) topologytest.Undo {
			defer func() {
				for range rand.N(10) {
					r.Uint64()
				}
			}()
			return f.Inject(s, r)
		}
	}
	if steps := run(&toy{}, 1, time.Minute, greedy...); !slices.Equal(steps, first) {
		t.Errorf("what one fault draws decides on the next one: %v\nis not\n%v", steps, first)
	}
}

// TestChaosFair: every fault comes, each about as often as the others, for as long as its Hold says, and none after the
// end.
func TestChaosFair(t *testing.T) {
	leak.Check(t)
	const d = 2 * time.Hour
	var began, last, ended time.Time
	var names []string
	var faults []topologytest.Fault
	for i := range 5 {
		name := fmt.Sprint("fault ", i)
		names = append(names, name)
		faults = append(faults, topologytest.Fault{
			Name: name,
			Inject: func(*topologytest.Stack, *rand.Rand) topologytest.Undo {
				last = time.Now()
				return nil
			},
			Hold: [2]time.Duration{0, time.Duration(i+1) * time.Second},
		})
	}
	faults[0].Hold = [2]time.Duration{} // the default
	var steps []topologytest.Step
	onToy(t, &toy{}, topologytest.Options{}, func(s *topologytest.Stack) {
		began = time.Now()
		steps = s.Chaos(1, d, faults...)
		ended = time.Now()
	})
	if begun := last.Sub(began); begun >= d || begun < d-10*time.Second {
		t.Errorf("the last step began after %v", begun)
	}
	if took := ended.Sub(began); took < d {
		t.Errorf("it ended after %v", took)
	}
	held := map[string][]time.Duration{}
	for _, step := range steps {
		held[step.Fault] = append(held[step.Fault], step.Held)
	}
	if got := slices.Sorted(maps.Keys(held)); !slices.Equal(got, names) {
		t.Fatalf("of %v came %v", names, got)
	}
	for i, f := range faults {
		from, to := f.Hold[0], f.Hold[1]
		if i == 0 {
			from, to = 200*time.Millisecond, 3*time.Second
		}
		h := held[f.Name]
		if n := len(h) * len(faults); n < len(steps)*8/10 || n > len(steps)*12/10 {
			t.Errorf("%s came %d times in %d steps", f.Name, len(h), len(steps))
		}
		edge := (to - from) / 20
		if low, high := slices.Min(h), slices.Max(h); low < from || low > from+edge || high > to || high < to-edge {
			t.Errorf("%s was held from %v to %v, want from %v to %v", f.Name, low, high, from, to)
		}
	}
}

// TestChaosFailure: who reads the output of a test that failed can run it again.
func TestChaosFailure(t *testing.T) {
	leak.Check(t)
	third := func(do func(s *topologytest.Stack)) topologytest.Fault {
		n := 0
		return topologytest.Fault{
			Name: "Third",
			Inject: func(s *topologytest.Stack, r *rand.Rand) topologytest.Undo {
				if n++; n == 3 {
					do(s)
				}
				return topologytest.KillPooler().Inject(s, r)
			},
		}
	}
	for _, c := range []struct {
		name string
		body func(s *topologytest.Stack, o *toy)
		want []string
		not  string
	}{
		{
			"does not recover",
			func(s *topologytest.Stack, o *toy) {
				s.Chaos(9, time.Minute, third(func(*topologytest.Stack) { o.lost = true }))
			},
			[]string{
				"Chaos with seed 9: after step 3, Third (kill pgb-", "the stack does not recover: waited 3m0s in vain",
				"Chaos with seed 9 did:", "   2. Third (kill pgb-", "   3. Third (kill pgb-", "UNDER WAY\n",
				"s.Chaos(9, 60*time.Second, faults...) with the faults Third",
			},
			"   4.",
		},
		{
			"cannot be done",
			func(s *topologytest.Stack, _ *toy) {
				s.Chaos(9, 90*time.Second, third(func(s *topologytest.Stack) { s.Cut("a", "b") }))
			},
			[]string{
				"cut a -> b: this stack has no proxies",
				"   3. Third (cut a -> b), to be held for", "UNDER WAY\n",
				"s.Chaos(9, 90*time.Second, faults...) with the faults Third",
			},
			"   4.",
		},
		{
			"the stack fails",
			func(s *topologytest.Stack, o *toy) {
				s.Chaos(9, time.Minute, third(func(*topologytest.Stack) { o.fail(errors.New("no more disk")) }))
			},
			[]string{"the stack failed: no more disk", "   3. Third", "UNDER WAY\n"},
			"   4.",
		},
		{
			"found later",
			func(s *topologytest.Stack, o *toy) {
				s.Chaos(1<<63, 2500*time.Millisecond)
				o.t.Errorf("a row is lost")
			},
			[]string{
				"a row is lost", "Chaos with seed 9223372036854775808 did:", "   1. ", "routed 0s later\n",
				"s.Chaos(9223372036854775808, 2500*time.Millisecond)\n",
			},
			"UNDER WAY",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := &toy{}
			out := onToy(t, o, topologytest.Options{Direct: true}, func(s *topologytest.Stack) { c.body(s, o) })
			if !out.failed {
				t.Error("the test did not fail")
			}
			for _, want := range c.want {
				if !strings.Contains(out.log.String(), want) {
					t.Errorf("%q is not in", want)
				}
			}
			if strings.Contains(out.log.String(), c.not) {
				t.Errorf("%q is in", c.not)
			}
			if len(o.down) > 0 && c.name != "the stack fails" {
				t.Errorf("%v are left down", o.down)
			}
			if t.Failed() {
				t.Logf("the output:\n%s", out.log.String())
			}
		})
	}

	out := onToy(t, &toy{}, topologytest.Options{Direct: true}, func(s *topologytest.Stack) { s.Chaos(9, time.Minute) })
	said := out.log.String()
	if out.failed || strings.Contains(said, "did:") || !strings.Contains(said, "s.Chaos(9, 60*time.Second)") {
		t.Errorf("a test that succeeds says:\n%s", said)
	}
}

func TestChaosRefuses(t *testing.T) {
	type fault = topologytest.Fault
	inject := func(*topologytest.Stack, *rand.Rand) topologytest.Undo { panic("not asked for") }
	for want, c := range map[string]struct {
		d     time.Duration
		fault fault
	}{
		"the duration is 0s":                     {0, fault{Name: "a", Inject: inject}},
		"fault 2: Name is empty":                 {1, fault{Inject: inject}},
		"fault 2: Inject of a is nil":            {1, fault{Name: "a"}},
		"fault 2: Hold of a is from 2s to 1s":    {1, fault{Name: "a", Inject: inject, Hold: [2]time.Duration{2e9, 1e9}}},
		"fault 2: Hold of a is from -1ns to 1ns": {1, fault{Name: "a", Inject: inject, Hold: [2]time.Duration{-1, 1}}},
	} {
		out := onToy(t, &toy{}, topologytest.Options{}, func(s *topologytest.Stack) {
			s.Chaos(1, c.d, topologytest.KillPrimary(), c.fault)
		})
		if !out.failed || !strings.Contains(out.log.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.log.String())
		}
	}
}

// TestFaultsFit: the default is what the stack can have.
func TestFaultsFit(t *testing.T) {
	for _, c := range []struct {
		toy       toy
		o         topologytest.Options
		want, not []string
	}{
		{
			toy{},
			topologytest.Options{Direct: true},
			[]string{"KillPrimary", "KillStandby"},
			[]string{"CutReplication", "DelayStore", "LoseQuorum"},
		},
		{
			toy{},
			topologytest.Options{},
			[]string{"CutPatroniFromStore", "CutReplication", "IsolateStandby"},
			[]string{"KillStoreLeader", "LoseQuorum"},
		},
		{
			toy{nodes: 1},
			topologytest.Options{},
			[]string{"KillPrimary", "DelayStore"},
			[]string{"KillStandby", "CutReplication", "IsolateStandby"},
		},
		{
			toy{members: 3},
			topologytest.Options{},
			[]string{"KillStoreLeader", "LoseQuorum"},
			nil,
		},
	} {
		onToy(t, &c.toy, c.o, func(s *topologytest.Stack) {
			var names []string
			for _, f := range s.Faults() {
				names = append(names, f.Name)
			}
			for _, name := range c.want {
				if !slices.Contains(names, name) {
					t.Errorf("%+v: %s is not in %v", c.o, name, names)
				}
			}
			for _, name := range c.not {
				if slices.Contains(names, name) {
					t.Errorf("%+v: %s is in %v", c.o, name, names)
				}
			}
			if slices.Sort(names); len(slices.Compact(names)) < len(s.Faults()) {
				t.Errorf("a fault is there twice: %v", names)
			}
		})
	}
}

// toy is a stack of nothing: what is killed or frozen only counts as down. Its primary is n1, its standby n2.
type toy struct {
	topologytest.Running
	nodes, members int             // 0: three nodes, one member
	lives          int             // PostgreSQLs that were killed
	slow           time.Duration   // until it is routed
	lost           bool            // never routed again
	down           map[string]bool // by component
	fail           context.CancelCauseFunc
	t              *toyT
}

func (o *toy) Check(context.Context, string) error { return nil }

func (o *toy) Run(
	ctx context.Context, _ topologytest.Config, fn func(ctx context.Context, r topologytest.Running) error,
) error {
	o.down = map[string]bool{}
	ctx, o.fail = context.WithCancelCause(ctx)
	defer o.fail(nil)
	return fn(ctx, o)
}

func (o *toy) Spec() topology.Spec {
	return topology.Spec{Nodes: topology.NodesNamed(cmp.Or(o.nodes, 3))}.WithDefaults()
}

func (o *toy) DCS() local.DCS { return local.DCS{Endpoints: make([]string, max(o.members, 1))} }

func (o *toy) Await(ctx context.Context, done func(topology.View) bool) error {
	time.Sleep(o.slow)
	writable := topology.LeadershipView{Phase: patroni.Writable.String(), Member: "n1"}
	if !o.lost && done(topology.View{
		Leadership:    writable,
		Members:       []topology.MemberView{{Name: "n1"}, {Name: "n2", Replication: "streaming", Sync: true}},
		Poolers:       []topology.PoolerView{{Name: "pgb-1", Live: true, State: topology.Routed}},
		ControlPlanes: []topology.ControlPlaneView{{Name: "cp-1"}},
	}) {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

func (o *toy) Down(_ context.Context, component string, _ syscall.Signal) error {
	return o.Freeze(component)
}

func (o *toy) Up(_ context.Context, component string) error { return o.Thaw(component) }
func (o *toy) PID(string) (int, error)                      { return 1 + o.lives, nil }

func (o *toy) Signal(string, syscall.Signal) error {
	o.lives++ // whatever it was, another one is there at once
	return nil
}

func (o *toy) Freeze(component string) error {
	if o.down[component] {
		return errors.New("it is down already")
	}
	o.down[component] = true
	return nil
}

func (o *toy) Thaw(component string) error {
	if !o.down[component] {
		return errors.New("it is not down")
	}
	delete(o.down, component)
	return nil
}

// onToy runs a test of its own on a toy, with time that costs nothing, and returns that test when it has ended.
func onToy(t *testing.T, o *toy, options topologytest.Options, body func(s *topologytest.Stack)) *toyT {
	t.Helper()
	t.Setenv("TMPDIR", t.TempDir()) // a test that fails leaves its logs
	options.Backend = o
	o.t = &toyT{}
	synctest.Test(t, func(t *testing.T) {
		o.t.TB = t
		ctx, cancel := context.WithCancel(t.Context())
		o.t.ctx = ctx
		done := make(chan struct{})
		go func() { // Fatalf ends it
			defer close(done)
			body(topologytest.Start(o.t, options))
		}()
		<-done
		cancel()
		for _, f := range slices.Backward(o.t.cleanups) {
			f()
		}
	})
	return o.t
}

// toyT is a test that may fail.
type toyT struct {
	testing.TB
	ctx      context.Context
	failed   bool
	log      strings.Builder
	cleanups []func()
}

func (t *toyT) Helper()                      {}
func (t *toyT) Name() string                 { return "Toy" }
func (t *toyT) Context() context.Context     { return t.ctx }
func (t *toyT) Cleanup(f func())             { t.cleanups = append(t.cleanups, f) }
func (t *toyT) Failed() bool                 { return t.failed }
func (t *toyT) Log(args ...any)              { fmt.Fprintln(&t.log, args...) }
func (t *toyT) Logf(format string, a ...any) { fmt.Fprintf(&t.log, format+"\n", a...) }

func (t *toyT) Errorf(format string, a ...any) {
	t.failed = true
	t.Logf(format, a...)
}

func (t *toyT) Fatalf(format string, a ...any) {
	t.Errorf(format, a...)
	runtime.Goexit()
}

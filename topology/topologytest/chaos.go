package topologytest

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Step is one fault of a sequence that [Stack.Chaos] ran.
type Step struct {
	Fault    string        // the name
	Did      string        // what it did, as marked in ledgers: "kill pgb-2"
	Held     time.Duration // how long it was to stay
	Recovery time.Duration // from its undo until the stack was [Routed]
}

// Chaos does one fault after the other for a duration, in an order that a seed decides: a fault is done, held, undone;
// the stack gets [Routed] again, a moment passes, and the next one follows. It returns what it did. After d no fault
// begins, except for the first; the last one is seen through to its end.
//
// Without faults it chooses among [Stack.Faults]; one that is given twice is chosen twice as often. The same seed and
// the same faults, in the same order, give the same sequence on every machine: only who is the primary when a fault
// asks for it is up to the stack. The duration decides nothing but where the sequence ends: on a slower machine it is
// shorter.
//
// A step from which the stack does not recover within [Options.Limit] fails the test. A test that fails, for whatever
// reason, also after Chaos, shows the seed and the sequence.
//
// To learn what clients see, run them beside it ([Stack.Write]). The stack need not be whole when Chaos returns: a node
// may still be on its way back ([Stack.Whole]).
func (s *Stack) Chaos(seed uint64, d time.Duration, faults ...Fault) []Step {
	s.t.Helper()
	c := &chaos{s: s, seed: seed, d: d, given: faults, faults: faults}
	if len(faults) == 0 {
		c.faults = s.Faults()
	}
	if d <= 0 {
		s.t.Fatalf("topologytest: Chaos: the duration is %v", d)
	}
	for i, f := range faults {
		if err := f.check(); err != nil {
			s.t.Fatalf("topologytest: Chaos: fault %d: %v", i+1, err)
		}
	}
	s.t.Logf("topologytest: %s", c.call()) // should the test not come to its end
	s.t.Cleanup(func() {
		s.t.Helper()
		if s.t.Failed() {
			s.t.Log(c)
		}
	})
	s.mu.Lock()
	s.marks[c] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.marks, c)
		s.mu.Unlock()
	}()
	for began := time.Now(); len(c.steps) == 0 || time.Since(began) < d; {
		c.step(turnOf(seed, len(c.steps), c.faults))
	}
	return c.steps
}

// chaos is a sequence under way.
type chaos struct {
	s             *Stack
	seed          uint64
	d             time.Duration
	given, faults []Fault
	steps         []Step
	busy          bool // the last of them is under way
}

func (c *chaos) step(t turn) {
	c.s.t.Helper()
	c.steps = append(c.steps, Step{Fault: t.Name, Held: t.held})
	c.busy = true
	undo := t.Inject(c.s, t.r)
	c.wait(t.held)
	if undo != nil {
		undo()
	}
	undone := time.Now()
	if err := c.s.await(c.s.t.Context(), Routed); err != nil {
		c.s.t.Fatalf("topologytest: Chaos with seed %d: after step %d, %s, the stack does not recover: %v",
			c.seed, len(c.steps), c.now().name(), err)
	}
	c.now().Recovery = time.Since(undone)
	c.busy = false
	c.wait(t.pause)
}

func (c *chaos) now() *Step { return &c.steps[len(c.steps)-1] }

// wait lets time pass, unless the stack fails.
func (c *chaos) wait(d time.Duration) {
	c.s.t.Helper()
	select {
	case <-time.After(d):
	case <-c.s.ctx.Done():
		c.s.t.Fatalf("topologytest: Chaos with seed %d: in step %d, %s, the stack failed: %v",
			c.seed, len(c.steps), c.now().name(), context.Cause(c.s.ctx))
	}
}

// Mark learns what a fault does, as ledgers do.
func (c *chaos) Mark(name string) time.Time {
	if c.busy {
		did := &c.now().Did
		*did = strings.TrimPrefix(*did+", "+name, ", ")
	}
	return time.Now()
}

// Note makes chaos a marker.
func (c *chaos) Note(string) time.Time { return time.Now() }

// String is the sequence for people.
func (c *chaos) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "topologytest: Chaos with seed %d did:\n", c.seed)
	for i, step := range c.steps {
		if c.busy && i == len(c.steps)-1 {
			fmt.Fprintf(&b, "%4d. %s, to be held for %v: UNDER WAY\n", i+1, step.name(), short(step.Held))
		} else {
			fmt.Fprintf(&b, "%4d. %v\n", i+1, step)
		}
	}
	fmt.Fprintf(&b, "To run it again: %s", c.call())
	return b.String()
}

// String is the step for people.
func (s Step) String() string {
	return fmt.Sprintf("%s, held for %v, routed %v later", s.name(), short(s.Held), short(s.Recovery))
}

func (s Step) name() string {
	if s.Did == "" {
		return s.Fault
	}
	return s.Fault + " (" + s.Did + ")"
}

func short(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

// call is the line of code that runs the same sequence.
func (c *chaos) call() string {
	if len(c.given) == 0 {
		return fmt.Sprintf("s.Chaos(%d, %s)", c.seed, code(c.d))
	}
	var names []string
	for _, f := range c.given {
		names = append(names, f.Name)
	}
	return fmt.Sprintf("s.Chaos(%d, %s, faults...) with the faults %s", c.seed, code(c.d), strings.Join(names, ", "))
}

// code is a duration as Go has it.
func code(d time.Duration) string {
	switch {
	case d%time.Second == 0:
		return fmt.Sprintf("%d*time.Second", d/time.Second)
	case d%time.Millisecond == 0:
		return fmt.Sprintf("%d*time.Millisecond", d/time.Millisecond)
	}
	return fmt.Sprintf("%d*time.Nanosecond", d)
}

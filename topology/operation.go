package topology

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pgconvoy/pgconvoy/patroni"
)

// ErrUnknown says that the operation passed its point of no return and its outcome could not be seen. Poolers go on holding
// until a primary is proven or their deadline; look at the View.
var ErrUnknown = errors.New("topology: outcome unknown")

// Operation is a planned change that a Coordinator carries out: a [Switchover].
type Operation interface{ operation() }

// Switchover makes another member the primary. The zero value picks the best candidate.
type Switchover struct {
	To     string        // the candidate's name; empty: the best one
	Budget time.Duration // how long the fleet may take to hold, which is as long as the longest transaction; 0: 5 s
	Limit  time.Duration // how long poolers may hold for it in all; 0: 30 s. PgBouncer's query_wait_timeout must exceed it by 5 s
}

func (Switchover) operation() {}

func (s Switchover) budget() time.Duration { return cmp.Or(s.Budget, 5*time.Second) }
func (s Switchover) limit() time.Duration  { return cmp.Or(s.Limit, 30*time.Second) }

// Refusal says why an operation cannot be done now, and what to do about it.
type Refusal struct {
	Reason string `json:"reason"`
	Remedy string `json:"remedy"`
}

// RefusedError says that the operation was not begun, nothing was changed.
type RefusedError struct{ Refusals []Refusal }

func (e *RefusedError) Error() string {
	var b strings.Builder
	b.WriteString("topology: refused: ")
	for i, r := range e.Refusals {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(r.Reason)
		if r.Remedy != "" {
			b.WriteString(" (" + r.Remedy + ")")
		}
	}
	return b.String()
}

// AbortedError says that the operation was called off before its point of no return. Everything was released again.
type AbortedError struct {
	Step string // where it stopped
	Err  error  // why
}

func (e *AbortedError) Error() string {
	return fmt.Sprintf("topology: called off in step %s, nothing changed: %v", e.Step, e.Err)
}

func (e *AbortedError) Unwrap() error { return e.Err }

// Plan is a preview of an operation. Do plans again under the lock.
type Plan struct {
	From     string        `json:"from"`
	To       string        `json:"to"`
	Epoch    patroni.Epoch `json:"epoch"`   // what it starts from
	Poolers  []string      `json:"poolers"` // that will be held
	Hook     bool          `json:"hook"`    // every node has the before-stop hook, which holds them at its moment
	Steps    []string      `json:"steps"`
	Refusals []Refusal     `json:"refusals,omitempty"` // empty: it can be done
}

// String is the plan for people.
func (p Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "switchover from %s to %s at epoch %s\n", p.From, p.To, p.Epoch)
	fmt.Fprintf(&b, "holds    %s\n", strings.Join(p.Poolers, ", "))
	for i, s := range p.Steps {
		fmt.Fprintf(&b, "step %d   %s\n", i+1, s)
	}
	for _, r := range p.Refusals {
		fmt.Fprintf(&b, "refused  %s: %s\n", r.Reason, r.Remedy)
	}
	return b.String()
}

// Report is what an operation did.
type Report struct {
	ID     string        `json:"id"`
	From   string        `json:"from"`
	To     string        `json:"to"`
	Before patroni.Epoch `json:"before"`
	After  patroni.Epoch `json:"after"`
	Held   time.Duration `json:"held_ns"` // from the order to hold until every pooler was routed again
	Steps  []Step        `json:"steps"`
	Notes  []string      `json:"notes,omitempty"` // what did not go as it should, without harm
}

// Step is one step of an operation.
type Step struct {
	Name     string        `json:"name"`
	Began    time.Time     `json:"began"`
	Took     time.Duration `json:"took_ns"`
	Evidence string        `json:"evidence,omitempty"` // how its end was seen
}

// String is the report for people: one line per step.
func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "switchover from %s to %s, poolers held for %s\n", r.From, r.To, r.Held.Round(time.Millisecond))
	for _, s := range r.Steps {
		fmt.Fprintf(&b, "  %-8s %8s  %s\n", s.Name, s.Took.Round(time.Millisecond), s.Evidence)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "  note: %s\n", n)
	}
	return b.String()
}

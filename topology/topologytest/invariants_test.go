package topologytest_test

import (
	"fmt"
	"slices"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/topology"
	"github.com/pgconvoy/pgconvoy/topology/ledger"
)

// cost is what a fault may cost the clients.
type cost int

const (
	nothing cost = iota // no transaction fails, and no write pooler moves
	waiting             // no transaction fails: poolers hold them, and let them go on the same leadership
	flight              // transactions in flight may fail, and no others; poolers may hold
	clients             // who loses a connection tries in vain until its way is there again; poolers may hold
)

func (c cost) String() string { return [...]string{"nothing", "waiting", "in flight", "clients"}[c] }

const (
	patience  = time.Minute      // of an agent, by default
	slack     = 10 * time.Second // of a busy machine
	healLimit = 30 * time.Second // to be routed after a fault's end; 10 s are what is promised of a quiet machine
)

// evidence is all that is known of a trial when it is over.
type evidence struct {
	began     time.Time
	report    ledger.Report
	epochs    []patroni.Epoch // those proven, from what was before to what was after, in order
	histories map[string]record.History
	services  map[string]string // of each pooler
	paused    []string          // poolers that are paused at the end
	recovery  time.Duration     // from the fault's end until all was routed
}

// violations are what a fault may never do, whichever it is, and what is more than its cost.
func violations(e *evidence, c cost) []string {
	var out []string
	bad := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	r := &e.report
	if !r.Checked {
		bad("the rows were not read back")
	}
	if r.Lost > 0 || r.Surplus > 0 {
		bad("%d acknowledged transactions are lost, %d rows are there that should not be", r.Lost, r.Surplus)
	}
	if r.Back > 0 || r.Stale > 0 || r.Reads.Back > 0 {
		bad("%d transactions and %d reads saw an older timeline than before, %d writes were accepted by an older primary",
			r.Back, r.Reads.Back, r.Stale)
	}
	switch {
	case c <= waiting && r.Failed > 0:
		bad("%d transactions failed (%v, %s), want 0", r.Failed, r.BySQLState, r.FirstError)
	case c == flight && r.Failed > r.InFlight:
		bad("%d transactions failed (%v, %s), more than the %d in flight", r.Failed, r.BySQLState, r.FirstError, r.InFlight)
	}
	if e.recovery > healLimit {
		bad("it took %v to be routed after the fault's end", e.recovery)
	}
	for _, name := range e.paused {
		bad("%s is paused, and nobody wants it to be", name)
	}
	changes := 0
	for i := 1; i < len(e.epochs); i++ {
		if e.epochs[i] != e.epochs[i-1] {
			changes++
		}
	}
	for name, service := range e.services {
		for _, what := range misroutes(e.histories[name].Moves, e.began, service, changes, c) {
			bad("%s %s", name, what)
		}
	}
	slices.Sort(out)
	return out
}

// misroutes are what is wrong with a pooler's moves since a trial began, during which the leadership changed so often.
func misroutes(moves []record.Move, began time.Time, service string, changes int, c cost) []string {
	var out []string
	bad := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if len(moves) == 0 {
		return []string{"has no history"}
	}
	var routed record.Move // the last time
	reroutes := 0
	for i, m := range moves {
		now := !m.At.Before(began)
		if m.From == string(topology.Held) && i > 0 && now {
			if held := m.At.Sub(moves[i-1].At); held > patience+slack {
				bad("was held for %v", held)
			}
		}
		write := service == topology.Write.String()
		if now && write && c == nothing && m.To == string(topology.Held) {
			bad("was held (%s: %s), which nothing asked for", m.Cause, m.Evidence)
		}
		if m.To != string(topology.Routed) {
			continue
		}
		if now && len(m.Target) == 0 {
			bad("was routed to nobody (%s)", m.Cause)
		}
		if now && m.Epoch.IsZero() {
			bad("was routed to what is not proven (%s)", m.Cause)
		}
		if routed.To != "" && now {
			order := m.Epoch.Compare(routed.Epoch, slices.Equal(m.Target, routed.Target))
			switch {
			case !write && m.Epoch.Timeline < routed.Epoch.Timeline:
				bad("went back from %v to %v (%s)", routed.Epoch, m.Epoch, m.Cause)
			case write && order != patroni.Same && order != patroni.Newer:
				bad("went back from %v to %v (%s)", routed.Epoch, m.Epoch, m.Cause)
			case write && order == patroni.Newer:
				reroutes++
			}
		}
		routed = m
	}
	if reroutes > changes {
		bad("moved %d times, while the leadership changed %d times", reroutes, changes)
	}
	if last := moves[len(moves)-1]; last.To != string(topology.Routed) {
		bad("ended %s (%s: %s)", last.To, last.Cause, last.Evidence)
	}
	return out
}

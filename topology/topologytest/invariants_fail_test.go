package topologytest_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/topology"
	"github.com/pgconvoy/pgconvoy/topology/ledger"
)

// TestInvariants: what may never happen is found, each by its name, and nothing else is.
func TestInvariants(t *testing.T) {
	began := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	at := func(seconds float64) time.Time { return began.Add(time.Duration(seconds * float64(time.Second))) }
	one, two := patroni.Epoch{SystemID: "7", Timeline: 1, Created: 10}, patroni.Epoch{SystemID: "7", Timeline: 2, Created: 20}
	a, b := []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:5432")}, []netip.AddrPort{netip.MustParseAddrPort("10.0.0.2:5432")}
	move := func(seconds float64, from, to topology.PoolerState, epoch patroni.Epoch, target []netip.AddrPort) record.Move {
		return record.Move{At: at(seconds), From: string(from), To: string(to), Epoch: epoch, Target: target, Cause: "why"}
	}
	before := move(-60, topology.Starting, topology.Routed, one, a)
	held := move(1, topology.Routed, topology.Held, one, a)
	follows := []record.Move{before, held, move(2, topology.Held, topology.Routed, two, b)}
	returns := []record.Move{before, held, move(2, topology.Held, topology.Routed, one, a)}
	// A good trial: a primary dies, two transactions with it, and the pooler follows.
	good := func() *evidence {
		return &evidence{
			began:  began,
			report: ledger.Report{Checked: true, Sent: 100, Acknowledged: 98, Failed: 2, InFlight: 2},
			epochs: []patroni.Epoch{one, two}, recovery: time.Second,
			services:  map[string]string{"pgb-1": topology.Write.String()},
			histories: map[string]record.History{"pgb-1": {Moves: follows}},
		}
	}
	moves := func(m ...record.Move) func(*evidence) {
		return func(e *evidence) { e.histories["pgb-1"] = record.History{Moves: m} }
	}
	for name, c := range map[string]struct {
		cost   cost
		change func(e *evidence)
		want   string // empty: all is well
	}{
		"good":       {flight, func(*evidence) {}, ""},
		"not read":   {flight, func(e *evidence) { e.report.Checked = false }, "not read back"},
		"lost":       {clients, func(e *evidence) { e.report.Lost = 1 }, "1 acknowledged transactions are lost"},
		"surplus":    {clients, func(e *evidence) { e.report.Surplus = 1 }, "1 rows are there that should not be"},
		"back":       {clients, func(e *evidence) { e.report.Back = 1 }, "1 transactions and 0 reads saw an older timeline"},
		"reads back": {clients, func(e *evidence) { e.report.Reads.Back = 1 }, "0 transactions and 1 reads saw an older timeline"},
		"stale":      {clients, func(e *evidence) { e.report.Stale = 1 }, "1 writes were accepted by an older primary"},
		"failed":     {flight, func(e *evidence) { e.report.Failed = 3 }, "more than the 2 in flight"},
		"failed while it waits": {waiting, func(e *evidence) {
			e.epochs = e.epochs[:1]
			moves(returns...)(e)
		}, "2 transactions failed"},
		"waits": {waiting, func(e *evidence) {
			e.report.Failed, e.epochs = 0, e.epochs[:1]
			moves(returns...)(e)
		}, ""},
		"held for nothing": {nothing, func(e *evidence) {
			e.report.Failed, e.epochs = 0, e.epochs[:1]
			moves(returns...)(e)
		}, "which nothing asked for"},
		"not noticed": {nothing, func(e *evidence) {
			e.report.Failed, e.epochs = 0, e.epochs[:1]
			moves(before)(e)
		}, ""},
		"clients fail": {clients, func(e *evidence) { e.report.Failed = 50 }, ""},
		"not healed":   {flight, func(e *evidence) { e.recovery = time.Minute }, "it took 1m0s"},
		"paused":       {flight, func(e *evidence) { e.paused = []string{"pgb-1"} }, "pgb-1 is paused"},
		"no history":   {flight, moves(), "has no history"},
		"held too long": {
			flight, moves(before, held, move(1+75, topology.Held, topology.Routed, two, b)),
			"was held for 1m15s",
		},
		"needless": {flight, func(e *evidence) { e.epochs = e.epochs[:1] }, "moved 1 times, while the leadership changed 0 times"},
		"older timeline": {
			flight, moves(before, move(1, topology.Routed, topology.Routed, two, b), move(2, topology.Routed, topology.Routed, one, a)),
			"went back from 7/2/20 to 7/1/10",
		},
		"same epoch elsewhere": {
			flight, moves(before, move(1, topology.Routed, topology.Routed, one, b)),
			"went back from 7/1/10 to 7/1/10",
		},
		"not proven": {
			flight, moves(before, move(1, topology.Held, topology.Routed, patroni.Epoch{}, b)),
			"to what is not proven",
		},
		"to nobody": {flight, moves(before, move(1, topology.Held, topology.Routed, two, nil)), "routed to nobody"},
		"ends held": {flight, moves(before, held), "ended held"},
		"before": { // is not this trial's matter
			nothing, func(e *evidence) {
				e.report.Failed, e.epochs = 0, []patroni.Epoch{two}
				moves(before, move(-50, topology.Routed, topology.Held, one, a), move(-40, topology.Held, topology.Routed, two, b))(e)
			}, "",
		},
	} {
		e := good()
		c.change(e)
		got := violations(e, c.cost)
		switch {
		case c.want == "" && len(got) > 0:
			t.Errorf("%s: %q, want nothing", name, got)
		case c.want != "" && !strings.Contains(strings.Join(got, "; "), c.want):
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

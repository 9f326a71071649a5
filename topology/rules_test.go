package topology

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/pooler"
)

var update = flag.Bool("update", false, "write the generated files")

// The clock of these tables: a hold began at second 1, that is the doubt, and may last until second 61.
func second(n int) time.Time { return time.Unix(1_000_000+int64(n), 0) }

// leadAt is a leadership whose proof began at second n.
func leadAt(n int, member string, addr netip.AddrPort, e patroni.Epoch) patroni.Leadership {
	l := proven(member, addr, e)
	l.At, l.Proof.At = second(n), second(n)
	return l
}

func inState(state PoolerState) *situation {
	s := &situation{
		now: second(10), state: state, epoch: epoch1, home: addr1,
		route: pooler.Target{Hosts: []netip.AddrPort{addr1}, Mark: epoch1.String()},
		lead:  leadAt(0, "n1", addr1, epoch1), patience: time.Minute,
	}
	switch state {
	case Held:
		s.doubt, s.deadline = second(1), second(61)
	case Failed:
		s.doubt, s.route.Hosts = second(1), nil
	}
	return s
}

// ruleNames are short names of writeRules, in their order.
var ruleNames = []string{
	"routed:newer", "routed:asked", "routed:lost", "routed:moved", "routed:strange", "routed:ahead",
	"held:newer", "held:renewed", "held:survives", "held:expired",
	"failed:newer", "failed:renewed", "failed:survives",
}

func TestRules(t *testing.T) {
	op := func(phase string) func(*situation) {
		return func(s *situation) {
			s.operation = record.Operation{ID: "op", Phase: phase, Epoch: epoch1, Limit: 30 * time.Second}
		}
	}
	lead := func(n int, member string, addr netip.AddrPort, e patroni.Epoch) func(*situation) {
		return func(s *situation) { s.lead = leadAt(n, member, addr, e) }
	}
	gone := func(s *situation) {
		s.lead.Phase, s.lead.Proof = patroni.Elected, patroni.Proof{At: second(9), Err: errDead}
	}
	unproven := func(s *situation) { s.lead.Phase = patroni.Elected }
	past := func(n int, o patroni.Outage) func(*situation) {
		return func(s *situation) {
			o.At = second(n)
			s.lead.Stale, s.lead.Outage = errDead, &o
		}
	}
	fresh := func(s *situation) { s.lead.Stale = nil }
	request := func(f patroni.Failover) func(*situation) {
		return func(s *situation) { s.lead.Failover, s.lead.Requested = f, 9 }
	}
	hook := func(member string) func(*situation) {
		return func(s *situation) { s.hooks = map[string]record.Hook{member: {}} }
	}
	accept := func(e patroni.Epoch) func(*situation) { return func(s *situation) { s.accepted = e } }
	home := func(n int, timeline uint32, system string) func(*situation) {
		return func(s *situation) { s.former = patroni.Proof{Timeline: timeline, SystemID: system, At: second(n)} }
	}
	late := func(s *situation) { s.now = second(61) }
	older := patroni.Epoch{SystemID: "7", Created: 900}
	all := func(changes ...func(*situation)) []func(*situation) { return changes }

	cases := []struct {
		input                string
		changes              []func(*situation)
		routed, held, failed string // the rule that wins; empty: it stays
	}{
		{"nothing is known", all(func(s *situation) { s.lead = patroni.Leadership{} }), "", "", ""},
		{"the same primary, proven before the doubt", nil, "", "", ""},
		{"proven exactly at the doubt", all(lead(1, "n1", addr1, epoch1)), "", "", ""},
		{"the same primary, proven anew", all(lead(5, "n1", addr1, epoch1)), "", "renewed", "renewed"},
		{"the same primary under another revision", all(lead(5, "n1", addr1, rebuilt)), "", "renewed", "renewed"},
		{"a later timeline elsewhere", all(lead(5, "n2", addr2, epoch2)), "newer", "newer", "newer"},
		{"a later timeline on the same address", all(lead(5, "n1", addr1, epoch2)), "newer", "newer", "newer"},
		{"a later timeline, proven before the doubt", all(lead(0, "n2", addr2, epoch2)), "newer", "newer", "newer"},
		{"a later revision elsewhere", all(lead(5, "n2", addr2, patroni.Epoch{SystemID: "7", Timeline: 1, Created: 101})), "newer", "newer", "renewed"},
		{"an older timeline elsewhere", all(lead(5, "n2", addr2, older)), "moved", "", ""},
		{"an older timeline on the same address", all(lead(5, "n1", addr1, older)), "strange", "", ""},
		{"a rebuilt store", all(lead(5, "n2", addr2, rebuilt)), "moved", "", ""},
		{"another database elsewhere", all(lead(5, "n2", addr2, foreign)), "moved", "", ""},
		{"another database on the same address", all(lead(5, "n1", addr1, foreign)), "strange", "", ""},
		{"the same acquisition elsewhere", all(lead(5, "n1", addr3, epoch1)), "newer", "newer", "newer"},
		{"the same acquisition elsewhere, proven before the doubt", all(lead(0, "n1", addr3, epoch1)), "newer", "newer", "newer"},
		{"the same acquisition elsewhere, not proven", all(lead(5, "n1", addr3, epoch1), unproven), "moved", "", ""},
		{"the primary is lost", all(gone), "lost", "", ""},
		{"the primary was never asked", all(func(s *situation) { s.lead.Phase, s.lead.Proof = patroni.Elected, patroni.Proof{} }), "", "", ""},
		{"the primary is in recovery", all(func(s *situation) {
			s.lead.Phase, s.lead.Proof = patroni.Promoting, patroni.Proof{At: second(9)}
		}), "lost", "", ""},
		{"the key names another member", all(func(s *situation) {
			s.lead.Phase, s.lead.Member, s.lead.Addr, s.lead.Proof = patroni.Elected, "n2", addr2, patroni.Proof{}
		}), "moved", "", ""},
		{"another member whose address is not known", all(func(s *situation) {
			s.lead.Phase, s.lead.Member, s.lead.Addr = patroni.Elected, "n2", netip.AddrPort{}
		}), "", "", ""},
		{"nobody holds the key and the primary serves", all(func(s *situation) { s.lead.Phase, s.lead.Member = patroni.Vacant, "" }), "", "", ""},
		{"nobody holds the key and the primary is lost", all(gone, func(s *situation) { s.lead.Phase, s.lead.Member = patroni.Vacant, "" }), "lost", "", ""},
		{"the store is in trouble", all(func(s *situation) { s.lead.Stale = errDead }), "", "", ""},
		{"an outage, and another member is ahead", all(past(9, patroni.Outage{Ahead: "n2"})), "ahead", "", ""},
		{"another member is ahead, of another leadership", all(unproven, past(9, patroni.Outage{Ahead: "n2"}), func(s *situation) { s.lead.Epoch = epoch2 }), "", "", ""},
		{"another member is ahead, and the store answers", all(past(9, patroni.Outage{Ahead: "n2"}), fresh), "", "", ""},
		{"another member is ahead, and the primary is proven anew", all(
			lead(5, "n1", addr1, epoch1), past(9, patroni.Outage{Ahead: "n2"})), "ahead", "", ""},
		{"an outage that is survived", all(past(9, patroni.Outage{Failsafe: true})), "", "survives", "survives"},
		{"survived under another revision", all(past(9, patroni.Outage{Failsafe: true}), func(s *situation) { s.lead.Epoch.Created = 5 }), "", "survives", "survives"},
		{"survived, asked exactly at the doubt", all(past(1, patroni.Outage{Failsafe: true})), "", "", ""},
		{"survived, and lost since it was asked", all(past(5, patroni.Outage{Failsafe: true}), func(s *situation) { s.lostAt = second(5) }), "", "", ""},
		{"survived, and the primary does not answer now", all(past(9, patroni.Outage{Failsafe: true}), gone), "lost", "", ""},
		{"survived, and the primary is on another timeline now", all(past(9, patroni.Outage{Failsafe: true}),
			func(s *situation) { s.lead.Proof.Timeline = 2 }), "", "", ""},
		{"survived by a later leadership", all(unproven, past(9, patroni.Outage{Failsafe: true}),
			func(s *situation) { s.lead.Epoch, s.lead.Proof.Timeline = epoch2, 2 }), "", "", ""},
		{"survived by another member", all(lead(0, "n2", addr2, epoch1), unproven, past(9, patroni.Outage{Failsafe: true})), "moved", "", ""},
		{"survived, and home is not known", all(past(9, patroni.Outage{Failsafe: true}), func(s *situation) { s.home = netip.AddrPort{} }), "", "", ""},
		{"survived, and the store answers", all(past(9, patroni.Outage{Failsafe: true}), fresh), "", "", ""},
		{"survived and ahead", all(past(9, patroni.Outage{Failsafe: true, Ahead: "n2"})), "ahead", "", ""},
		{"survived, and an operation asks", all(past(9, patroni.Outage{Failsafe: true}), op(record.Switch)), "asked", "", ""},
		{"survived, and the deadline has passed", all(past(9, patroni.Outage{Failsafe: true}), late), "", "survives", "survives"},
		{"an outage of which nobody knows more", all(past(9, patroni.Outage{})), "", "", ""},

		{"a request to Patroni", all(request(patroni.Failover{Leader: "n1"})), "asked", "", ""},
		{"a request that names another member as well", all(request(patroni.Failover{Leader: "n1", Candidate: "n2"})), "asked", "", ""},
		{"a request for another member alone", all(request(patroni.Failover{Candidate: "n2"})), "asked", "", ""},
		{"a request for our primary", all(request(patroni.Failover{Candidate: "n1"})), "", "", ""},
		{"a request to leave another leader", all(request(patroni.Failover{Leader: "n3", Candidate: "n2"})), "", "", ""},
		{"a request that is due", all(request(patroni.Failover{Leader: "n1", ScheduledAt: second(10)})), "asked", "", ""},
		{"a request that is not yet due", all(request(patroni.Failover{Leader: "n1", ScheduledAt: second(11)})), "", "", ""},
		{"a request without a revision", all(request(patroni.Failover{Leader: "n1"}), func(s *situation) { s.lead.Requested = 0 }), "", "", ""},
		{"a request that was heard", all(request(patroni.Failover{Leader: "n1"}), func(s *situation) { s.heard = 9 }), "", "", ""},
		{"a request to a node with a hook", all(request(patroni.Failover{Leader: "n1"}), hook("n1")), "", "", ""},
		{"a request, and another node has a hook", all(request(patroni.Failover{Leader: "n1"}), hook("n2")), "asked", "", ""},
		{"a request to a paused cluster", all(request(patroni.Failover{Leader: "n1"}), func(s *situation) { s.lead.Paused = true }), "", "", ""},
		{"a request to a paused cluster that names another member", all(request(patroni.Failover{Candidate: "n2"}), func(s *situation) { s.lead.Paused = true }), "asked", "", ""},
		{"a request, first seen when the primary is lost", all(gone, request(patroni.Failover{Leader: "n1"})), "lost", "", ""},
		{"a request that was heeded, and the primary is lost", all(gone, request(patroni.Failover{Leader: "n1"}), func(s *situation) { s.heeded = 9 }), "asked", "", ""},
		{"a request in an outage", all(request(patroni.Failover{Leader: "n1"}), func(s *situation) { s.lead.Stale = errDead }), "", "", ""},
		{"a request of an operation", all(request(patroni.Failover{Leader: "n1"}), op(record.Prepare)), "", "", ""},
		{"a request after an operation", all(request(patroni.Failover{Leader: "n1"}), op(record.Done)), "asked", "", ""},

		{"a rebuilt store, accepted", all(lead(0, "n2", addr2, rebuilt), accept(rebuilt)), "newer", "newer", "newer"},
		{"a rebuilt store, another one accepted", all(lead(5, "n2", addr2, rebuilt), accept(patroni.Epoch{SystemID: "7", Timeline: 1, Created: 6})), "moved", "", ""},
		{"another database, accepted", all(lead(5, "n2", addr2, foreign), accept(foreign)), "newer", "newer", "newer"},
		{"another database, accepted, on the same address", all(lead(5, "n1", addr1, foreign), accept(foreign)), "newer", "newer", "newer"},
		{"another database, accepted and not proven", all(lead(5, "n2", addr2, foreign), unproven, accept(foreign)), "moved", "", ""},
		{"an older timeline, accepted", all(lead(5, "n2", addr2, older), accept(older)), "moved", "", ""},
		{"a rebuilt store, which the old primary follows", all(lead(0, "n2", addr2, rebuilt), home(5, 1, "7")), "moved", "newer", "newer"},
		{"which it followed before the doubt", all(lead(5, "n2", addr2, rebuilt), home(1, 1, "7")), "moved", "", ""},
		{"on another timeline", all(lead(5, "n2", addr2, rebuilt), home(5, 2, "7")), "moved", "", ""},
		{"of another database", all(lead(5, "n2", addr2, rebuilt), home(5, 1, "8")), "moved", "", ""},
		{"and the old primary is writable", all(lead(5, "n2", addr2, rebuilt), home(5, 1, "7"), func(s *situation) { s.former.Writable = true }), "moved", "", ""},
		{"and the old primary does not answer", all(lead(5, "n2", addr2, rebuilt), home(5, 1, "7"), func(s *situation) { s.former.Err = errDead }), "moved", "", ""},
		{"another database, which the old primary seems to follow", all(lead(5, "n2", addr2, foreign), home(5, 9, "8")), "moved", "", ""},

		{"an operation prepares", all(op(record.Prepare)), "", "", ""},
		{"an operation asks", all(op(record.Hold)), "asked", "", ""},
		{"an operation switches", all(op(record.Switch)), "asked", "", ""},
		{"an operation is called off", all(op(record.Release)), "", "", ""},
		{"an operation is done", all(op(record.Done)), "", "", ""},
		{"an operation of another leadership asks", all(op(record.Hold), func(s *situation) { s.operation.Epoch = epoch2 }), "", "", ""},
		{"the time of the operation is over", all(op(record.Hold), func(s *situation) { s.over = "op" }), "", "", ""},
		{"an operation leaves the hold to the hook", all(op(record.Switch), func(s *situation) { s.operation.Hook = true }), "", "", ""},
		{"and the hook asks", all(op(record.Switch), func(s *situation) {
			s.operation.Hook, s.stops = true, map[string]record.BeforeStop{"n1": {ID: "x"}}
		}), "asked", "", ""},
		{"the hook of the primary asks", all(func(s *situation) { s.stops = map[string]record.BeforeStop{"n1": {ID: "x"}} }), "asked", "", ""},
		{"the hook of another member asks", all(func(s *situation) { s.stops = map[string]record.BeforeStop{"n2": {ID: "x"}} }), "", "", ""},
		{"the deadline has passed", all(late), "", "expired", ""},

		// Which one wins.
		{"newer, and an operation asks", all(lead(5, "n2", addr2, epoch2), op(record.Switch)), "newer", "newer", "newer"},
		{"proven anew, and an operation asks", all(lead(5, "n1", addr1, epoch1), op(record.Switch)), "asked", "", ""},
		{"an operation asks, and the primary is lost", all(gone, op(record.Hold)), "asked", "", ""},
		{"newer, and the deadline has passed", all(lead(5, "n2", addr2, epoch2), late), "newer", "newer", "newer"},
		{"proven anew, and the deadline has passed", all(lead(5, "n1", addr1, epoch1), late), "", "renewed", "renewed"},
		{"a rebuilt store, and the deadline has passed", all(lead(5, "n2", addr2, rebuilt), late), "moved", "expired", ""},
	}
	reached := map[string]bool{}
	for _, c := range cases {
		for state, want := range map[PoolerState]string{Starting: "", Routed: c.routed, Held: c.held, Failed: c.failed} {
			s := inState(state)
			for _, change := range c.changes {
				change(s)
			}
			got := ""
			if r := decide(s); r != nil {
				for i := range writeRules {
					if r == &writeRules[i] {
						got = ruleNames[i]
					}
				}
			}
			if want != "" {
				want = string(state) + ":" + want
			}
			if got != want {
				t.Errorf("%s, %s: rule %q, want %q", c.input, state, got, want)
			}
			reached[got] = true
		}
	}
	for _, name := range ruleNames {
		if !reached[name] {
			t.Errorf("no case reaches the rule %s", name)
		}
	}
	if len(ruleNames) != len(writeRules) {
		t.Errorf("%d rules, %d names", len(writeRules), len(ruleNames))
	}
}

// A pooler that refuses clients has no address to stay on, but it remembers where it was: a rebuilt store does not get
// it elsewhere by that detour.
func TestOrderWhileRefusing(t *testing.T) {
	for _, c := range []struct {
		name string
		home netip.AddrPort
		lead patroni.Leadership
		want patroni.Order
	}{
		{"rebuilt store, back home", addr1, leadAt(5, "n1", addr1, rebuilt), patroni.Same},
		{"rebuilt store, elsewhere", addr1, leadAt(5, "n2", addr2, rebuilt), patroni.Rebuilt},
		{"rebuilt store, home not known", netip.AddrPort{}, leadAt(5, "n2", addr2, rebuilt), patroni.Rebuilt},
		{"same acquisition, home not known", netip.AddrPort{}, leadAt(5, "n1", addr1, epoch1), patroni.Same},
		{"later timeline, home not known", netip.AddrPort{}, leadAt(5, "n2", addr2, epoch2), patroni.Newer},
		{"older timeline, home not known", netip.AddrPort{}, leadAt(5, "n2", addr2, patroni.Epoch{SystemID: "7", Created: 900}), patroni.Older},
		{"another database, home not known", netip.AddrPort{}, leadAt(5, "n2", addr2, patroni.Epoch{SystemID: "8", Timeline: 9}), patroni.Foreign},
	} {
		s := inState(Failed)
		s.home, s.lead = c.home, c.lead
		if got := s.order(); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// agentTable is the documentation of the states, made from the rules themselves.
func agentTable() string {
	var b strings.Builder
	b.WriteString(`# What an agent does

Generated from the table in rules.go (` + "`go test ./topology -run TestAgentTable -update`" + `). In each state the first row whose condition
holds applies; where none does, the pooler stays as it is. Trouble with the store alone is in no row. A route that fails is tried again, and
until it succeeds the pooler is held. The leadership that the route belongs to, proven at another address, counts as a newer one: its holder
has changed its address.

| state | when | the pooler is | then |
|---|---|---|---|
`)
	words := map[step]string{
		stay: "left as it is", hold: "held: new transactions wait",
		route:  "routed to the proven primary, and let go",
		back:   "let go where it was, at the same epoch",
		refuse: "pointed at an address that refuses, and let go",
	}
	for _, r := range writeRules {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", r.from, r.when, words[r.do], r.to)
	}
	return b.String()
}

func TestAgentTable(t *testing.T) {
	const file = "agent.md"
	if *update {
		if err := os.WriteFile(file, []byte(agentTable()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(file)
	if err != nil || string(have) != agentTable() {
		t.Errorf("%s is out of date (%v): go test ./topology -run TestAgentTable -update", file, err)
	}
}

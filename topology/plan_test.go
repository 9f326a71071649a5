package topology

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
)

// healthy is a picture in which nothing is in the way of a switchover from n1 to n2 or n3.
func healthy() picture {
	replica := func(name string, lsn uint64) patroni.Member {
		return patroni.Member{
			Name: name, Host: addr2.String(), API: "http://" + name + ":8008", State: "running", Role: patroni.RoleReplica,
			Timeline: 1, LSN: lsn, ReplicationState: "streaming",
		}
	}
	routed := func() record.Pooler {
		return record.Pooler{State: string(Routed), Epoch: epoch1, Abilities: []string{record.AbilityHold}}
	}
	return picture{
		cluster: patroni.Cluster{
			Path: demo, Leader: "n1", At: time.Now(),
			Members: []patroni.Member{
				{Name: "n1", Host: addr1.String(), API: "http://n1:8008", State: "running", Role: patroni.RolePrimary, Timeline: 1},
				replica("n2", 100), replica("n3", 200),
			},
			Config: patroni.Config{Synchronous: "on"},
			Sync:   patroni.Sync{Leader: "n1", Standbys: []string{"n2", "n3"}},
		},
		lead: proven("n1", addr1, epoch1),
		fleet: map[string]record.Fleet{
			"pgb-1": {Service: "write"}, "pgb-2": {Service: "write"}, "pgb-4": {Service: "read"},
		},
		poolers: map[string]record.Pooler{"pgb-1": routed(), "pgb-2": routed()},
	}
}

func TestPlan(t *testing.T) {
	p := healthy()
	plan := planSwitchover(Switchover{}, p)
	if len(plan.Refusals) > 0 || plan.From != "n1" || plan.To != "n3" || plan.Epoch != epoch1 || plan.Hook ||
		!slices.Equal(plan.Poolers, []string{"pgb-1", "pgb-2"}) {
		t.Errorf("plan %+v", plan)
	}
	for _, part := range []string{"from n1 to n3", "pgb-1, pgb-2", "point of no return", epoch1.String()} {
		if !strings.Contains(plan.String(), part) {
			t.Errorf("%q is not in:\n%s", part, plan)
		}
	}
	if plan := planSwitchover(Switchover{To: "n2"}, p); len(plan.Refusals) > 0 || plan.To != "n2" {
		t.Errorf("plan %+v", plan)
	}
	p.hooks = map[string]record.Hook{"n1": {}, "n2": {}}
	if planSwitchover(Switchover{}, p).Hook {
		t.Error("one node has no hook")
	}
	p.hooks["n3"] = record.Hook{}
	if plan := planSwitchover(Switchover{}, p); !plan.Hook || !strings.Contains(plan.String(), "hook") {
		t.Errorf("plan %+v", plan)
	}
}

func TestPlanRefuses(t *testing.T) {
	member := func(i int, change func(*patroni.Member)) func(*picture) {
		return func(p *picture) { change(&p.cluster.Members[i]) }
	}
	pooler := func(change func(*record.Pooler)) func(*picture) {
		return func(p *picture) {
			r := p.poolers["pgb-2"]
			change(&r)
			p.poolers["pgb-2"] = r
		}
	}
	to := Switchover{To: "n2"}
	for _, c := range []struct {
		op     Switchover
		change func(*picture)
		why    string // part of the only refusal
	}{
		{Switchover{To: "n2", Budget: 30 * time.Second}, nil, "Limit"},
		{Switchover{To: "n2", Budget: -1}, nil, "Budget"},
		{Switchover{To: "n2", Limit: -1}, nil, "Limit"},
		{to, func(p *picture) { p.cluster.Config.StandbyCluster = true }, "standby cluster"},
		{to, func(p *picture) { p.lead = dead(p.lead) }, "no primary is proven writable (elected: connection refused)"},
		{to, func(p *picture) { p.lead.Stale = errDead }, "the store does not answer"},
		{to, func(p *picture) { p.cluster.Config.Paused = true }, "maintenance mode"},
		{to, func(p *picture) { p.cluster.Failover = patroni.Failover{Leader: "n1", Candidate: "n3"} }, `from "n1" to "n3"`},
		{to, member(0, func(m *patroni.Member) { m.API = "" }), "REST address of the primary n1"},
		{Switchover{To: "n9"}, nil, `no member "n9"`},
		{Switchover{To: "n1"}, nil, "n1 is the primary already"},
		{to, member(1, func(m *patroni.Member) { m.Tags = map[string]any{"nofailover": true} }), "nofailover"},
		{to, member(1, func(m *patroni.Member) { m.State = "stopped" }), `state "stopped"`},
		{to, member(1, func(m *patroni.Member) { m.ReplicationState = "in archive recovery" }), "does not stream"},
		{to, member(1, func(m *patroni.Member) { m.Timeline = 9 }), "timeline 9"},
		{to, func(p *picture) { p.cluster.Sync.Standbys = []string{"n3"} }, "not a synchronous standby"},
		{Switchover{}, func(p *picture) { p.cluster.Members = p.cluster.Members[:1] }, "no member can take over"},
		{to, func(p *picture) { p.broken = errDead }, "cannot be read"},
		{to, func(p *picture) { delete(p.poolers, "pgb-2") }, "pgb-2 has no live agent"},
		{to, pooler(func(r *record.Pooler) { r.Abilities = nil }), "pgb-2 cannot hold"},
		{to, pooler(func(r *record.Pooler) { r.State, r.Reason = "held", "orphan" }), "pgb-2 is held (orphan)"},
		{to, pooler(func(r *record.Pooler) { r.Epoch.Timeline = 0 }), "pgb-2 is at epoch"},
		{to, pooler(func(r *record.Pooler) { r.Error = "no console" }), "no console"},
		{to, func(p *picture) { p.fleet = nil }, "no write pooler"},
	} {
		p := healthy()
		if c.change != nil {
			c.change(&p)
		}
		got := planSwitchover(c.op, p).Refusals
		if len(got) != 1 || !strings.Contains(got[0].Reason, c.why) || got[0].Remedy == "" {
			t.Errorf("%s: refused with %+v", c.why, got)
			continue
		}
		if err := (&RefusedError{got}); !strings.Contains(err.Error(), c.why) || !strings.Contains(err.Error(), got[0].Remedy) {
			t.Errorf("error %q", err)
		}
	}
	// Asynchronous: any replica that streams will do.
	p := healthy()
	p.cluster.Config.Synchronous, p.cluster.Sync = "", patroni.Sync{}
	if plan := planSwitchover(Switchover{}, p); len(plan.Refusals) > 0 || plan.To != "n3" {
		t.Errorf("plan %+v", plan)
	}
}

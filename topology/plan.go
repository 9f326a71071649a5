package topology

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/mutant"
	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
)

// picture is what a plan is made from.
type picture struct {
	cluster patroni.Cluster
	lead    patroni.Leadership
	fleet   map[string]record.Fleet
	poolers map[string]record.Pooler
	hooks   map[string]record.Hook
	broken  error // records that cannot be read
}

// planSwitchover is pure: the same picture gives the same plan.
func planSwitchover(op Switchover, p picture) Plan {
	plan := Plan{From: p.lead.Member, Epoch: p.lead.Epoch, Hook: len(p.cluster.Members) > 0}
	for _, m := range p.cluster.Members {
		if _, ok := p.hooks[m.Name]; !ok {
			plan.Hook = false
		}
	}
	hold := fmt.Sprintf("hold the write poolers, all within %s, else release them all", op.budget())
	ask := "ask Patroni's leader to switch over: the point of no return"
	plan.Steps = []string{
		"lock the cluster's operation",
		"checkpoint the primary and the candidate, so that stopping and promoting are short",
		hold, ask,
		"each pooler is routed on its own proof of the new primary",
		"verify that all are routed",
	}
	if plan.Hook {
		plan.Steps[2], plan.Steps[3] = ask, "the primary's before-stop hook holds the write poolers, right before the stop"
	}
	refuse := func(reason, remedy string) {
		plan.Refusals = append(plan.Refusals, Refusal{Reason: reason, Remedy: remedy})
	}
	if op.Budget < 0 || op.Limit < 0 || op.limit() <= op.budget() {
		refuse(fmt.Sprintf("Switchover.Limit %s does not exceed Budget %s", op.limit(), op.budget()), "give a larger Limit")
	}
	switch {
	case p.cluster.Config.StandbyCluster:
		refuse("this is a standby cluster: it has no primary", "promote the cluster first")
	case p.lead.Phase != patroni.Writable:
		refuse(fmt.Sprintf("no primary is proven writable (%s: %s)", p.lead.Phase, p.lead.Reason), "wait for a primary, or see why there is none")
	case p.lead.Stale != nil:
		refuse("the store does not answer: "+p.lead.Stale.Error(), "wait until it does")
	default:
		if m, _ := p.cluster.Member(p.lead.Member); m.API == "" {
			refuse("the REST address of the primary "+p.lead.Member+" is not known", "see restapi.connect_address in its Patroni's configuration")
		}
	}
	if p.cluster.Config.Paused {
		refuse("the cluster is in maintenance mode", "resume it: patronictl resume")
	}
	if f := p.cluster.Failover; f != (patroni.Failover{}) {
		refuse(fmt.Sprintf("Patroni has a change of the primary pending (from %q to %q)", f.Leader, f.Candidate), "wait for it, or cancel it: patronictl flush")
	}
	plan.To = op.To
	if op.To == "" {
		plan.To = bestCandidate(p)
		if plan.To == "" {
			refuse("no member can take over", "a candidate streams, has no nofailover tag and, with synchronous mode, is a synchronous standby")
		}
	} else if why, remedy := unfit(p, op.To); why != "" {
		refuse(why, remedy)
	}
	plan.Poolers = p.refusePoolers(refuse)
	return plan
}

// refusePoolers names the write poolers of the roster and refuses what would not hold.
func (p picture) refusePoolers(refuse func(reason, remedy string)) []string {
	if p.broken != nil {
		refuse("a record cannot be read: "+p.broken.Error(), "use a program of the version that wrote it")
	}
	var names []string
	for _, name := range slices.Sorted(maps.Keys(p.fleet)) {
		if p.fleet[name].Service != Write.String() {
			continue
		}
		names = append(names, name)
		switch a, live := p.poolers[name]; {
		case !live:
			refuse("pooler "+name+" has no live agent: it would not hold", "start its agent, or remove it from the fleet")
		case !slices.Contains(a.Abilities, record.AbilityHold) && !mutant.Is("law13-abilities-are-asked"):
			refuse("the agent of pooler "+name+" cannot hold for an operation", "use a newer agent")
		case a.State != string(Routed):
			refuse(fmt.Sprintf("pooler %s is %s (%s)", name, a.State, a.Reason), "wait until it is routed")
		case p.lead.Phase == patroni.Writable && a.Epoch.Compare(p.lead.Epoch, true) != patroni.Same:
			refuse(fmt.Sprintf("pooler %s is at epoch %s, the primary at %s", name, a.Epoch, p.lead.Epoch), "wait until it has followed")
		case a.Error != "":
			refuse("pooler "+name+": "+a.Error, "mend it first")
		}
	}
	if len(names) == 0 {
		refuse("no write pooler is registered at "+p.cluster.Path, "start the agents first")
	}
	return names
}

// unfit says why a member cannot take over; empty: it can.
func unfit(p picture, name string) (why, remedy string) {
	m, ok := p.cluster.Member(name)
	sync := p.cluster.Config.Synchronous != ""
	switch {
	case !ok:
		return fmt.Sprintf("there is no member %q", name), "members are " + strings.Join(p.cluster.Names(), ", ")
	case name == p.lead.Member:
		return name + " is the primary already", "name another member"
	case m.Tag("nofailover"):
		return name + " has the tag nofailover", "name another member, or remove the tag"
	case !m.Streaming():
		return fmt.Sprintf("%s does not stream (state %q, replication %q)", name, m.State, m.ReplicationState), "wait until it does"
	case m.Timeline != 0 && p.lead.Epoch.Timeline != 0 && m.Timeline != p.lead.Epoch.Timeline:
		return fmt.Sprintf("%s is on timeline %d, the primary on %d", name, m.Timeline, p.lead.Epoch.Timeline), "wait until it has caught up"
	case sync && !p.cluster.Sync.Has(name):
		return name + " is not a synchronous standby", "name one of " + strings.Join(p.cluster.Sync.Standbys, ", ") + ", or wait"
	}
	return "", ""
}

// bestCandidate is the fit member that has received most.
func bestCandidate(p picture) string {
	var fit []patroni.Member
	for _, m := range p.cluster.Members {
		if why, _ := unfit(p, m.Name); why == "" {
			fit = append(fit, m)
		}
	}
	if len(fit) == 0 {
		return ""
	}
	return slices.MinFunc(fit, func(a, b patroni.Member) int {
		return cmp.Or(cmp.Compare(b.LSN, a.LSN), cmp.Compare(a.Name, b.Name))
	}).Name
}

// unrouted names the poolers of the plan that are not at what is awaited, and what they are at.
func unrouted(names []string, poolers map[string]record.Pooler, at func(record.Pooler) bool) []string {
	var missing []string
	for _, n := range names {
		if a, ok := poolers[n]; !ok {
			missing = append(missing, n+" (no live agent)")
		} else if !at(a) {
			why := a.State
			if a.Error != "" {
				why += ": " + a.Error
			}
			missing = append(missing, fmt.Sprintf("%s (%s for %s)", n, why, time.Since(a.Since).Round(time.Millisecond)))
		}
	}
	return missing
}

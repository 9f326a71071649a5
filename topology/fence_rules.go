package topology

import (
	"fmt"
	"strings"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
)

// fenceCase is everything that a fence is decided on: a primary that was silent for long enough, and what was learned
// after that.
type fenceCase struct {
	lead    patroni.Leadership
	cluster patroni.Cluster // by a linearizable read
	fences  record.Fences
	awake   string      // what of the primary answers after all; empty: nothing, or it was not asked again
	heirs   []fenceHeir // the synchronous standbys
	now     time.Time
	every   time.Duration
}

// fenceHeir is a synchronous standby and what it says of itself now.
type fenceHeir struct {
	name   string
	member patroni.Member // zero: it has no member key
	proof  patroni.Proof
	status patroni.Status
	err    error // why there is no status
}

// refusal says why the primary is not fenced; empty: it is.
func (c *fenceCase) refusal() string {
	l, k := c.lead, c.cluster
	_, known := k.Member(l.Member)
	switch {
	case l.Stale != nil:
		return fmt.Sprintf("the store is not current: %v", l.Stale)
	case k.Leader == "":
		return "nobody holds the leader key any more"
	case k.Leader != l.Member:
		return fmt.Sprintf("the leader key names %s by now", k.Leader)
	case l.Epoch.IsZero() || k.LeaderVersion.Created != l.Epoch.Created:
		return fmt.Sprintf("%s was never proven writable here under the claim that it holds", l.Member)
	case k.SystemID != l.Epoch.SystemID:
		return "the store and the proof are not of the same database"
	case !known:
		return fmt.Sprintf("the member %s is not known: its key is away", l.Member)
	case k.Config.Paused || l.Paused:
		return "the cluster is paused"
	case k.Config.StandbyCluster:
		return "it is a standby cluster"
	case k.Config.Synchronous == "":
		return "replication is not synchronous: nobody knows what would be lost"
	case k.Sync.Leader != l.Member:
		return fmt.Sprintf("the synchronous standbys are those of %q", k.Sync.Leader)
	case c.awake != "":
		return c.awake + " answers after all"
	}
	if last := c.recent(); last != "" {
		return last
	}
	return c.unready()
}

// recent names an attempt that is not long enough ago. One that lies in the future is of another clock, and counts.
func (c *fenceCase) recent() string {
	for _, f := range c.fences.Fences {
		if c.now.Sub(f.At) < c.every {
			return fmt.Sprintf("%s was fenced by %s at %s (%s): at most once in %v", f.Member, f.By, f.At.UTC().Format(time.RFC3339), f.Outcome, c.every)
		}
	}
	return ""
}

// unready says why nobody can take over. Patroni needs one synchronous standby; with quorum commit one more than the
// quorum, of which it takes the one that has most.
func (c *fenceCase) unready() string {
	needed, ready := 1, 0
	if c.cluster.Config.Synchronous == "quorum" {
		needed += c.cluster.Sync.Quorum
	}
	var why []string
	for _, h := range c.heirs {
		if unfit := h.unfit(c.lead.Epoch); unfit != "" {
			why = append(why, h.name+" "+unfit)
			continue
		}
		ready++
	}
	if ready >= needed {
		return ""
	}
	if len(why) == 0 {
		why = []string{"there is none"}
	}
	return fmt.Sprintf("no synchronous standby can take over, or too few (%d of %d): %s", ready, needed, strings.Join(why, "; "))
}

// unfit says why a standby cannot take over; empty: it can. A replica whose primary is dead streams nothing: then its SQL
// knows no timeline, and its Patroni does.
func (h *fenceHeir) unfit(e patroni.Epoch) string {
	priority, given := h.member.Tags["failover_priority"].(float64)
	switch p, s := h.proof, h.status; {
	case h.member.Name == "":
		return "has no member key"
	case h.member.Tag("nofailover") || given && priority <= 0:
		return "must not take over: it is tagged so"
	case p.Err != nil:
		return fmt.Sprintf("does not answer: %v", p.Err)
	case p.Writable:
		return "is not in recovery"
	case p.SystemID != e.SystemID:
		return "is of another database"
	case p.Timeline != 0 && p.Timeline != e.Timeline:
		return fmt.Sprintf("streams timeline %d, not %d", p.Timeline, e.Timeline)
	case h.err != nil:
		return fmt.Sprintf("has a Patroni that does not answer: %v", h.err)
	case s.State != "running" || s.Role != patroni.RoleReplica:
		return fmt.Sprintf("is %s as %s", s.State, s.Role)
	case s.Timeline != e.Timeline:
		return fmt.Sprintf("is on timeline %d, not %d", s.Timeline, e.Timeline)
	case s.Paused:
		return "knows that the cluster is paused"
	}
	return ""
}

package patroni

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// Cluster is what Patroni says of one cluster in its configuration store. Keys may be from different moments.
type Cluster struct {
	Path            string      // "/service/demo": namespace and scope
	SystemID        string      // PostgreSQL's system identifier in decimal; empty while the cluster is being created
	Leader          string      // the member that holds the leader key; empty: nobody. Not a proof of anything, see Source
	LeaderVersion   dcs.Version // of the leader key; Created grows with every acquisition
	Members         []Member    // sorted by name
	Config          Config      // the dynamic configuration
	Sync            Sync        // synchronous replication as Patroni keeps it
	Failover        Failover    // a requested switchover or failover; zero: none
	FailoverVersion dcs.Version // of that request
	History         []HistoryLine
	Optime          uint64 // the primary's WAL position in bytes, as of its last loop
	Gone            bool   // the store has none of its keys: it was removed, or never was

	At    time.Time // the content was confirmed at this moment or later
	Stale error     // why it could not be confirmed since; nil: it is current
}

// Known reports whether the store ever answered. Without it an empty cluster means nothing.
func (c Cluster) Known() bool { return !c.At.IsZero() }

// Age is the time since the content was last confirmed; zero when it never was.
func (c Cluster) Age() time.Duration {
	if c.At.IsZero() {
		return 0
	}
	return time.Since(c.At)
}

// Member returns a member by its name.
func (c Cluster) Member(name string) (Member, bool) {
	for _, m := range c.Members {
		if m.Name == name {
			return m, true
		}
	}
	return Member{}, false
}

// Member is what one Patroni node publishes about itself, once per loop.
type Member struct {
	Name             string
	Host             string // host:port of its PostgreSQL
	Proxy            string // host:port for poolers, where the node has a proxy_address; else empty
	API              string // base address of its REST API, "http://host:8008"; empty if unknown
	State            string // "running", "starting", "stopped", ...
	Role             Role
	Version          string // Patroni's
	Timeline         uint32 // 0: unknown
	LSN              uint64 // bytes; a primary's position, or the larger of a replica's received and replayed one
	ReplicationState string // "streaming", "in archive recovery" or empty
	Tags             map[string]any
	PendingRestart   bool
	Paused           bool // the node knows that the cluster is in maintenance mode
}

// Running reports whether PostgreSQL is up by the member's own word.
func (m Member) Running() bool { return m.State == "running" }

// Streaming reports whether the member is a replica that streams, by its own word.
func (m Member) Streaming() bool { return m.Running() && m.ReplicationState == "streaming" }

// Tag reports whether a tag is set to true.
func (m Member) Tag(name string) bool { b, _ := m.Tags[name].(bool); return b }

// Route is where poolers reach the member: its proxy address if it has one.
func (m Member) Route() string {
	if m.Proxy != "" {
		return m.Proxy
	}
	return m.Host
}

// Role is a member's role by its own word. Old names are folded into the present ones.
type Role string

// The roles that Patroni writes.
const (
	RolePrimary       Role = "primary" // "master" before Patroni 4
	RoleReplica       Role = "replica"
	RoleStandbyLeader Role = "standby_leader"
	RolePromoted      Role = "promoted" // told to promote, not yet seen as promoted
	RoleDemoted       Role = "demoted"
	RoleUninitialized Role = "uninitialized"
)

// folded gives the present name of an old one.
func (r Role) folded() Role {
	if r == "master" {
		return RolePrimary
	}
	return r
}

// Config is the part of the dynamic configuration that this package uses.
type Config struct {
	TTL, LoopWait, RetryTimeout time.Duration // defaults 30, 10 and 10 s
	Paused                      bool          // maintenance mode: Patroni does not fail over
	StandbyCluster              bool          // the leader itself is a replica of another cluster: never writable
	Synchronous                 string        // "", "on" or "quorum"
	SynchronousStrict           bool
	Failsafe                    bool
	MaximumLag                  int64           // bytes, for a failover candidate
	PrimaryStartTimeout         time.Duration   // how long Patroni tries to restart a crashed primary in place
	Raw                         json.RawMessage // the whole document
}

// Sync is the sync key: which standbys are synchronous.
type Sync struct {
	Leader   string
	Standbys []string
	Quorum   int
}

// Has reports whether a member may take over without losing an acknowledged commit.
func (s Sync) Has(member string) bool {
	for _, n := range s.Standbys {
		if strings.EqualFold(n, member) {
			return true
		}
	}
	return false
}

// Failover is a requested change of the primary.
type Failover struct {
	Leader      string    // the present leader: it is a switchover
	Candidate   string    // empty: any
	ScheduledAt time.Time // zero: now
}

// HistoryLine says which timeline ended where. The line is written some time after the promotion.
type HistoryLine struct {
	Timeline uint32
	LSN      uint64
	Reason   string
	At       time.Time // zero: not recorded
	Leader   string    // the leader of the timeline that followed; empty: not recorded
}

package topology

import (
	"cmp"
	"net/netip"
	"time"

	"github.com/pgconvoy/pgconvoy/patroni"
)

// View is everything that is known about a stack at one moment. Each part has a [Seen] that says where it is from and
// when that was last confirmed; what cannot be confirmed any more stays as it was, and grows old.
//
// In JSON a list is never null, times are RFC 3339, and durations are nanoseconds in fields that end in _ns.
type View struct {
	At            time.Time          `json:"at"` // when it was put together
	Path          string             `json:"path"`
	Leadership    LeadershipView     `json:"leadership"`
	Members       []MemberView       `json:"members"`
	Poolers       []PoolerView       `json:"poolers"`
	ControlPlanes []ControlPlaneView `json:"controlplanes"`
	Operation     *OperationView     `json:"operation,omitempty"` // nil: none
	Paused        bool               `json:"paused,omitempty"`    // Patroni is in maintenance mode
	Stale         string             `json:"stale,omitempty"`     // why not all of it can be confirmed or read; empty: all is
	Confirmed     time.Time          `json:"confirmed"`           // when the store last confirmed all of it; zero: never
}

// Age is the time from the store's last confirmation to At; zero when there never was one.
func (v View) Age() time.Duration { return age(v.Confirmed, v.At) }

// Sources of what a [View] has.
const (
	FromStore   = "store"   // Key is a key of it
	FromProbe   = "probe"   // Key is the address of the database server that was asked
	FromConsole = "console" // Key is the name of the pooler whose console was asked
)

// Seen says where a part of a [View] is from, and how good it is.
type Seen struct {
	Source   string    `json:"source"`
	Key      string    `json:"key"`
	Revision uint64    `json:"revision,omitempty"` // of the key, as the store counts; 0: there is no such key, or none is counted
	At       time.Time `json:"at"`                 // when it was last confirmed, or the question was sent; zero: never
}

// Age is how long ago that was; zero when it never was.
func (s Seen) Age(now time.Time) time.Duration { return age(s.At, now) }

func age(at, now time.Time) time.Duration {
	if at.IsZero() {
		return 0
	}
	return max(0, now.Sub(at))
}

// LeadershipView says who leads, and what is proven of it.
type LeadershipView struct {
	Phase    string         `json:"phase"`
	Member   string         `json:"member,omitempty"`
	Addr     netip.AddrPort `json:"addr"`
	Epoch    patroni.Epoch  `json:"epoch"`
	Reason   string         `json:"reason"`
	At       time.Time      `json:"at"`                 // when the proof began (writable), else when the source's content was confirmed
	TTL      time.Duration  `json:"ttl_ns,omitempty"`   // how long a dead holder keeps the key
	Failover *FailoverView  `json:"failover,omitempty"` // that somebody asked Patroni for; nil: none
	Outage   *OutageView    `json:"outage,omitempty"`   // what the members say while the store does not answer; nil: it does, or nobody asked
	Stale    string         `json:"stale,omitempty"`    // why its source cannot confirm it; empty: it is current
	Seen     Seen           `json:"seen"`               // the leader key
	Probe    Seen           `json:"probe"`              // the holder's last answer
}

// FailoverView is a change of the primary that somebody asked Patroni for.
type FailoverView struct {
	From     string    `json:"from,omitempty"` // the present leader: it is a switchover
	To       string    `json:"to,omitempty"`   // empty: any member
	Due      time.Time `json:"due,omitzero"`   // zero: at once
	Revision uint64    `json:"revision"`       // of the request: two of them are told apart by it
}

// OutageView is what was learned past the store while it does not answer.
type OutageView struct {
	At       time.Time `json:"at"`              // when the members were asked
	Failsafe bool      `json:"failsafe"`        // the primary goes on, by the word of every member
	Ahead    string    `json:"ahead,omitempty"` // a member that is writable on a higher timeline: the leadership is over
	Reason   string    `json:"reason"`
}

// MemberView is one Patroni node, by its own word. Where the [LeaderSource] looks at replicas, Fresh, Lag and Error are
// what it found.
type MemberView struct {
	Name        string        `json:"name"`
	Host        string        `json:"host"`
	Proxy       string        `json:"proxy,omitempty"` // where poolers reach it, if elsewhere
	API         string        `json:"api"`
	Role        string        `json:"role"`
	State       string        `json:"state"`
	Replication string        `json:"replication,omitempty"`
	Timeline    uint32        `json:"timeline"`
	LSN         uint64        `json:"lsn"`
	Sync        bool          `json:"sync,omitempty"`   // a synchronous standby
	Fresh       bool          `json:"fresh,omitempty"`  // a replica that a read service may be sent to
	Lag         time.Duration `json:"lag_ns,omitempty"` // how far behind the primary it is, see patroni.Replica; 0: it has all, or nobody told
	Error       string        `json:"error,omitempty"`  // why it did not answer the probe
	Seen        Seen          `json:"seen"`
}

// Route is where poolers reach the member's PostgreSQL.
func (m MemberView) Route() string { return cmp.Or(m.Proxy, m.Host) }

// PoolerView is one pooler of the roster, with what its agent says. Without a live agent State is empty.
type PoolerView struct {
	Name      string           `json:"name"`
	Service   string           `json:"service"`
	Addr      netip.AddrPort   `json:"addr"`
	Live      bool             `json:"live"` // its agent is registered
	State     PoolerState      `json:"state,omitempty"`
	Target    []netip.AddrPort `json:"target"`
	Epoch     patroni.Epoch    `json:"epoch"`
	Operation string           `json:"operation,omitempty"`
	Since     time.Time        `json:"since"`
	Reason    string           `json:"reason,omitempty"`
	Error     string           `json:"error,omitempty"`
	Draining  bool             `json:"draining,omitempty"` // an operator takes it out of service: [Fleet.Drain]
	Empty     bool             `json:"empty,omitempty"`    // and no client is left
	Pool      *PoolView        `json:"pool,omitempty"`     // nil: its console was not asked, or not yet
	Seen      Seen             `json:"seen"`               // its registration, else its roster entry
}

// PoolView is what a pooler's console says, asked at most once a second. While it does not answer, Error says why and
// the rest is what it said last.
type PoolView struct {
	Version string                 `json:"version"`
	Clients int                    `json:"clients"` // connected
	Waiting int                    `json:"waiting"` // of those, for a server
	Servers map[netip.AddrPort]int `json:"servers"` // connections by address
	Held    bool                   `json:"held"`    // new transactions wait
	Error   string                 `json:"error,omitempty"`
	Seen    Seen                   `json:"seen"`
}

// ControlPlaneView is one control plane with its balancers.
type ControlPlaneView struct {
	Name     string                 `json:"name"`
	Services map[string]ServiceView `json:"services"`
	Seen     Seen                   `json:"seen"`
}

// ServiceView is one service of one control plane.
type ServiceView struct {
	Version  string            `json:"version"`
	Envoys   []string          `json:"envoys"`             // connected
	Applied  []string          `json:"applied"`            // of those, the ones that serve this version
	Rejected map[string]string `json:"rejected,omitempty"` // by Envoy: why
	Draining []string          `json:"draining"`           // the poolers that get no new clients by this version
	Kept     string            `json:"kept,omitempty"`     // why the last endpoints are served, not the roster's; empty: they are
}

// OperationView is the running operation.
type OperationView struct {
	ID    string    `json:"id"`
	Kind  string    `json:"kind"`
	From  string    `json:"from"`
	To    string    `json:"to"`
	Phase string    `json:"phase"`
	Owner string    `json:"owner"`
	Since time.Time `json:"since"`
	Seen  Seen      `json:"seen"`
}

// Routed reports whether every pooler of the roster has a live agent and serves a proven target, and a writable
// primary is proven.
func (v View) Routed() bool {
	for _, p := range v.Poolers {
		if !p.Live || p.State != Routed {
			return false
		}
	}
	return len(v.Poolers) > 0 && v.Leadership.Phase == patroni.Writable.String()
}

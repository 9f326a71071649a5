package topology

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/pgconvoy/pgconvoy/patroni"
)

// View is everything that is known about a stack at one moment, from the store alone. Times and Stale say how good
// each part is.
type View struct {
	At            time.Time          `json:"at"`
	Path          string             `json:"path"`
	Leadership    LeadershipView     `json:"leadership"`
	Members       []MemberView       `json:"members"`
	Poolers       []PoolerView       `json:"poolers"`
	ControlPlanes []ControlPlaneView `json:"controlplanes"`
	Operation     *OperationView     `json:"operation,omitempty"` // nil: none
	Paused        bool               `json:"paused,omitempty"`    // Patroni is in maintenance mode
	Stale         string             `json:"stale,omitempty"`     // why the store cannot confirm this
	Confirmed     time.Time          `json:"confirmed"`           // when it last did; zero: never
}

// LeadershipView says who leads.
type LeadershipView struct {
	Phase  string         `json:"phase"`
	Member string         `json:"member,omitempty"`
	Addr   netip.AddrPort `json:"addr"`
	Epoch  patroni.Epoch  `json:"epoch"`
	Reason string         `json:"reason"`
	At     time.Time      `json:"at"`
}

// MemberView is one Patroni node, by its own word.
type MemberView struct {
	Name        string `json:"name"`
	Host        string `json:"host"`
	Proxy       string `json:"proxy,omitempty"` // where poolers reach it, if elsewhere
	API         string `json:"api"`
	Role        string `json:"role"`
	State       string `json:"state"`
	Replication string `json:"replication,omitempty"`
	Timeline    uint32 `json:"timeline"`
	LSN         uint64 `json:"lsn"`
	Sync        bool   `json:"sync,omitempty"` // a synchronous standby
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
	Target    []netip.AddrPort `json:"target,omitempty"`
	Epoch     patroni.Epoch    `json:"epoch"`
	Operation string           `json:"operation,omitempty"`
	Since     time.Time        `json:"since"`
	Reason    string           `json:"reason,omitempty"`
	Error     string           `json:"error,omitempty"`
}

// ControlPlaneView is one control plane with its balancers.
type ControlPlaneView struct {
	Name     string                 `json:"name"`
	Services map[string]ServiceView `json:"services"`
}

// ServiceView is one service of one control plane.
type ServiceView struct {
	Version  string            `json:"version"`
	Envoys   []string          `json:"envoys"`
	Applied  []string          `json:"applied"`
	Rejected map[string]string `json:"rejected,omitempty"`
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

// String is the view for people.
func (v View) String() string {
	var b strings.Builder
	l := v.Leadership
	fmt.Fprintf(&b, "%s  leader %s %s, epoch %s", v.Path, orDash(l.Member), l.Phase, orDash(l.Epoch.String()))
	if v.Paused {
		b.WriteString(", maintenance mode")
	}
	switch {
	case v.Stale != "" && v.Confirmed.IsZero():
		fmt.Fprintf(&b, ", NEVER CONFIRMED: %s", v.Stale)
	case v.Stale != "":
		fmt.Fprintf(&b, ", STALE for %s: %s", v.At.Sub(v.Confirmed).Round(time.Millisecond), v.Stale)
	}
	b.WriteByte('\n')
	for _, m := range v.Members {
		sync := ""
		if m.Sync {
			sync = "sync"
		}
		fmt.Fprintf(&b, "  %-8s %-21s %-8s %-10s %-10s timeline %d %s\n", m.Name, m.Host, m.Role, m.State, m.Replication, m.Timeline, sync)
	}
	for _, p := range v.Poolers {
		state := string(p.State)
		if !p.Live {
			state = "no agent"
		}
		fmt.Fprintf(&b, "  %-8s %-21s %-8s %-10s to %s %s\n", p.Name, p.Addr, p.Service, state, addrs(p.Target), p.Error)
	}
	for _, c := range v.ControlPlanes {
		for name, s := range c.Services {
			fmt.Fprintf(&b, "  %-8s %-8s version %s applied by %d of %d Envoys\n", c.Name, name, s.Version, len(s.Applied), len(s.Envoys))
		}
	}
	if o := v.Operation; o != nil {
		fmt.Fprintf(&b, "  operation %s: %s from %s to %s, phase %s, by %s\n", o.ID, o.Kind, o.From, orDash(o.To), o.Phase, o.Owner)
	}
	return b.String()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func addrs(a []netip.AddrPort) string {
	if len(a) == 0 {
		return "nothing"
	}
	var s []string
	for _, x := range a {
		s = append(s, x.String())
	}
	return strings.Join(s, ",")
}

package topology

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
)

// Spec describes a stack as plain data. The zero value is a whole one: three nodes with synchronous replication, three
// write and two read poolers, one Envoy. Zero addresses are chosen where the stack runs.
type Spec struct {
	Path     string      `json:"path,omitempty"`    // Patroni's namespace and scope; empty: "/service/demo"
	Nodes    []Node      `json:"nodes,omitempty"`   // nil: n1, n2, n3
	Poolers  []PgBouncer `json:"poolers,omitempty"` // nil: three write and two read poolers
	Envoy    Envoy       `json:"envoy,omitzero"`
	Timing   Timing      `json:"timing,omitzero"`
	Database string      `json:"database,omitempty"` // the application's database and user; empty: "app"

	// Asynchronous turns synchronous replication off: a crash of the primary may then lose acknowledged commits.
	Asynchronous bool `json:"asynchronous,omitempty"`
	// Parameters are PostgreSQL settings for all nodes, beside the ones that a local stack needs.
	Parameters map[string]string `json:"parameters,omitempty"`
}

// Node is one Patroni node with its PostgreSQL.
type Node struct {
	Name     string         `json:"name"`
	Postgres netip.AddrPort `json:"postgres,omitzero"`
	API      netip.AddrPort `json:"api,omitzero"` // Patroni's REST API
}

// PgBouncer is one pooler.
type PgBouncer struct {
	Name   string         `json:"name"`
	Read   bool           `json:"read,omitempty"` // serves reads from replicas; false: writes to the primary
	Listen netip.AddrPort `json:"listen,omitzero"`
}

// Service is what the pooler is for.
func (p PgBouncer) Service() Service {
	if p.Read {
		return Read
	}
	return Write
}

// Envoy is the entry point.
type Envoy struct {
	Write netip.AddrPort `json:"write,omitzero"`
	Read  netip.AddrPort `json:"read,omitzero"`
	Admin netip.AddrPort `json:"admin,omitzero"`
}

// Timing is Patroni's, in whole seconds as it has them.
type Timing struct {
	TTL          int `json:"ttl,omitempty"`           // 0: 30; at least 20
	LoopWait     int `json:"loop_wait,omitempty"`     // 0: 10
	RetryTimeout int `json:"retry_timeout,omitempty"` // 0: 10; at least 3
}

// WithDefaults fills in what is zero, except addresses.
func (s Spec) WithDefaults() Spec {
	s.Path = cmp.Or(s.Path, "/service/demo")
	s.Database = cmp.Or(s.Database, "app")
	if s.Nodes == nil {
		s.Nodes = NodesNamed(3)
	}
	if s.Poolers == nil {
		s.Poolers = PoolersNamed(3, 2)
	}
	s.Timing.TTL = cmp.Or(s.Timing.TTL, 30)
	s.Timing.LoopWait = cmp.Or(s.Timing.LoopWait, 10)
	s.Timing.RetryTimeout = cmp.Or(s.Timing.RetryTimeout, 10)
	return s
}

// NodesNamed makes n nodes named n1, n2 and so on.
func NodesNamed(n int) []Node {
	nodes := make([]Node, n)
	for i := range nodes {
		nodes[i].Name = fmt.Sprintf("n%d", i+1)
	}
	return nodes
}

// PoolersNamed makes poolers named pgb-1 and so on, the write ones first.
func PoolersNamed(write, read int) []PgBouncer {
	poolers := make([]PgBouncer, write+read)
	for i := range poolers {
		poolers[i] = PgBouncer{Name: fmt.Sprintf("pgb-%d", i+1), Read: i >= write}
	}
	return poolers
}

// Validate refuses what cannot be a stack; each error names its field.
func (s Spec) Validate() error {
	s = s.WithDefaults()
	var errs []error
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf("topology: Spec."+format, args...)) }
	if err := CheckPath(s.Path); err != nil {
		refuse("%w", err)
	}
	if len(s.Nodes) == 0 {
		refuse("Nodes is empty")
	}
	names := map[string]string{}
	addresses := map[netip.AddrPort]string{}
	name := func(field, name string) {
		if err := checkName("Spec."+field, name); err != nil {
			errs = append(errs, err)
		} else if other, taken := names[name]; taken {
			refuse("%s %q is the name of %s already", field, name, other)
		}
		names[name] = field
	}
	address := func(field string, a netip.AddrPort) {
		if a == (netip.AddrPort{}) {
			return
		}
		if !a.IsValid() || a.Port() == 0 || a.Addr().IsUnspecified() {
			refuse("%s %v is not an address that others can connect to", field, a)
		} else if other, taken := addresses[a]; taken {
			refuse("%s %v is used by %s already", field, a, other)
		}
		addresses[a] = field
	}
	for i, n := range s.Nodes {
		name(fmt.Sprintf("Nodes[%d].Name", i), n.Name)
		address(fmt.Sprintf("Nodes[%d].Postgres", i), n.Postgres)
		address(fmt.Sprintf("Nodes[%d].API", i), n.API)
	}
	services := map[Service]bool{}
	var port uint16
	for i, p := range s.Poolers {
		name(fmt.Sprintf("Poolers[%d].Name", i), p.Name)
		address(fmt.Sprintf("Poolers[%d].Listen", i), p.Listen)
		services[p.Service()] = true
	}
	if !services[Write] {
		refuse("Poolers has no write pooler")
	}
	if services[Read] {
		for i, n := range s.Nodes {
			if port != 0 && n.Postgres.Port() != 0 && n.Postgres.Port() != port {
				refuse("Nodes[%d].Postgres has port %d, another node has %d: a read pooler knows one port for all", i, n.Postgres.Port(), port)
			}
			if n.Postgres.Port() != 0 {
				port = n.Postgres.Port()
			}
		}
	}
	address("Envoy.Write", s.Envoy.Write)
	address("Envoy.Read", s.Envoy.Read)
	address("Envoy.Admin", s.Envoy.Admin)
	if s.Timing.TTL < 20 {
		refuse("Timing.TTL is %d s, Patroni's least is 20", s.Timing.TTL)
	}
	if s.Timing.LoopWait < 1 {
		refuse("Timing.LoopWait is %d s, Patroni's least is 1", s.Timing.LoopWait)
	}
	if s.Timing.RetryTimeout < 3 {
		refuse("Timing.RetryTimeout is %d s, Patroni's least is 3", s.Timing.RetryTimeout)
	}
	if t := s.Timing; t.LoopWait+2*t.RetryTimeout > t.TTL {
		refuse("Timing: LoopWait %d + 2*RetryTimeout %d exceeds TTL %d", t.LoopWait, t.RetryTimeout, t.TTL)
	}
	if err := checkName("Spec.Database", s.Database); err != nil {
		errs = append(errs, err)
	}
	for _, reserved := range []string{"postgres", "replicator", "pgbouncer", "template0", "template1"} {
		if s.Database == reserved {
			refuse("Database %q is reserved", s.Database)
		}
	}
	return errors.Join(errs...)
}

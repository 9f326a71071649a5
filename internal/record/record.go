// Package record is pgconvoy's own part of the configuration store: the keys below /pgconvoy<path> and their JSON.
//
// Each record carries a version. A reader ignores fields that it does not know and refuses a version that it does not
// know, so that a newer writer is never half understood.
package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/mutant"
	"github.com/pgconvoy/pgconvoy/patroni"
)

// version is what this code writes and the newest that it reads.
const version = 1

// Dir is the directory of all records of the cluster at path.
func Dir(path string) string { return "/pgconvoy" + path }

// FleetKey is where the roster entry of a pooler is.
func FleetKey(path, name string) string { return Dir(path) + "/fleet/" + name }

// PoolerKey is where the registration of a pooler is.
func PoolerKey(path, name string) string { return Dir(path) + "/poolers/" + name }

// OperationKey is where the one operation of a cluster is.
func OperationKey(path string) string { return Dir(path) + "/operation" }

// ControlPlaneKey is where the record of a control plane is.
func ControlPlaneKey(path, name string) string { return Dir(path) + "/controlplanes/" + name }

// HookKey says that a member has the before-stop hook.
func HookKey(path, member string) string { return Dir(path) + "/hooks/" + member }

// BeforeStopKey is where the request of a member's running hook is.
func BeforeStopKey(path, member string) string { return Dir(path) + "/beforestop/" + member }

// Fleet is the roster entry of one pooler: it belongs to the fleet whether or not its agent is alive.
type Fleet struct {
	V       int            `json:"v"`
	Service string         `json:"service"`
	Address netip.AddrPort `json:"address"` // where clients, that is Envoy, reach it
	// Draining: it gets no new clients; an operator asked for it, and takes it back.
	Draining bool `json:"draining,omitempty"`
}

// Pooler is what a live agent says of its pooler.
type Pooler struct {
	V         int              `json:"v"`
	Abilities []string         `json:"abilities"`
	Service   string           `json:"service"`
	Address   netip.AddrPort   `json:"address"`
	Instance  string           `json:"instance,omitempty"` // of the agent's run: two at a time are one too many
	State     string           `json:"state"`
	Drained   bool             `json:"drained,omitempty"` // held, and no transaction is left on a server
	Epoch     patroni.Epoch    `json:"epoch"`
	Target    []netip.AddrPort `json:"target,omitempty"`
	Operation string           `json:"operation,omitempty"` // the operation that it holds for
	Since     time.Time        `json:"since"`
	Reason    string           `json:"reason,omitempty"`
	Error     string           `json:"error,omitempty"`
	Draining  bool             `json:"draining,omitempty"` // as its roster entry asks
	Empty     bool             `json:"empty,omitempty"`    // draining, and no client is connected any more
}

// What an agent is able to do.
const (
	AbilityHold  = "hold"  // hold and release for an operation
	AbilityDrain = "drain" // say that its pooler is draining, and when it is empty
)

// Phases of an operation, in their order.
const (
	Prepare = "prepare"
	Hold    = "hold"    // agents of the write service hold
	Switch  = "switch"  // past the point of no return: they keep holding until proof or deadline
	Release = "release" // called off before the point of no return: they resume on proof
	Done    = "done"
)

// Operation is the one planned operation of a cluster.
type Operation struct {
	V     int           `json:"v"`
	ID    string        `json:"id"`
	Kind  string        `json:"kind"`
	From  string        `json:"from"`
	To    string        `json:"to,omitempty"`
	Phase string        `json:"phase"`
	Epoch patroni.Epoch `json:"epoch"`    // the leadership that it starts from
	Limit time.Duration `json:"limit_ns"` // how long an agent may hold for it, on the agent's own clock
	Hook  bool          `json:"hook"`     // the before-stop hook of the primary asks for the hold, at its moment
	Owner string        `json:"owner"`
	Since time.Time     `json:"since"` // of the phase, by the owner's clock: for people
}

// Hook says that a member's Patroni calls the before-stop hook. It lasts until an operator removes it.
type Hook struct {
	V int `json:"v"`
}

// BeforeStop is the request of a running before-stop hook: its PostgreSQL is about to be stopped.
type BeforeStop struct {
	V       int           `json:"v"`
	ID      string        `json:"id"`       // of this one stop: a primary may be restarted twice under one leadership
	Created uint64        `json:"created"`  // creation revision of the leader key that the member holds
	Limit   time.Duration `json:"limit_ns"` // how long an agent may hold for it, on the agent's own clock
}

// ControlPlane is what one control plane has published, and what its Envoys made of it.
type ControlPlane struct {
	V        int                     `json:"v"`
	Instance string                  `json:"instance,omitempty"` // of its run: two at a time are one too many
	Services map[string]ServiceState `json:"services"`
}

// ServiceState is one service of one control plane.
type ServiceState struct {
	Version  string            `json:"version"`            // content hash
	Envoys   []string          `json:"envoys,omitempty"`   // connected
	Applied  []string          `json:"applied,omitempty"`  // of those, the ones that serve this version
	Rejected map[string]string `json:"rejected,omitempty"` // node to reason
	Draining []string          `json:"draining,omitempty"` // the poolers that get no new clients by this version, as their roster entries ask
	Kept     string            `json:"kept,omitempty"`     // why this version is older than the roster; empty: it is the roster's
}

// Record is any of the records here: Encode fills in its version.
type Record interface{ stamp() }

func (r *Fleet) stamp()        { r.V = version }
func (r *Pooler) stamp()       { r.V = version }
func (r *Operation) stamp()    { r.V = version }
func (r *ControlPlane) stamp() { r.V = version }
func (r *Hook) stamp()         { r.V = version }
func (r *BeforeStop) stamp()   { r.V = version }

// Encode makes the value of a record; the version is filled in.
func Encode(r Record) []byte {
	r.stamp()
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // no record has a field that cannot be encoded
	}
	return b
}

// Decode reads one record; with an error it is the zero value.
func Decode[T any](e dcs.Entry) (T, error) {
	var head struct {
		V int `json:"v"`
	}
	var r, zero T
	if err := json.Unmarshal(e.Value, &head); err != nil {
		return r, fmt.Errorf("%s is not a pgconvoy record: %w", e.Key, err)
	}
	if head.V < 1 || head.V > version && !mutant.Is("law13-newer-records-are-refused") {
		return r, fmt.Errorf("%s has version %d; this program knows versions up to %d", e.Key, head.V, version)
	}
	if err := json.Unmarshal(e.Value, &r); err != nil {
		return zero, fmt.Errorf("%s: %w", e.Key, err)
	}
	return r, nil
}

// FleetOf returns the roster in a snapshot of Dir(path), and which entries cannot be read.
func FleetOf(s dcs.Snapshot, path string) (map[string]Fleet, error) {
	return all[Fleet](s, Dir(path)+"/fleet")
}

// PoolersOf returns the registrations.
func PoolersOf(s dcs.Snapshot, path string) (map[string]Pooler, error) {
	return all[Pooler](s, Dir(path)+"/poolers")
}

// ControlPlanesOf returns what the control planes have published.
func ControlPlanesOf(s dcs.Snapshot, path string) (map[string]ControlPlane, error) {
	return all[ControlPlane](s, Dir(path)+"/controlplanes")
}

// HooksOf returns the members whose Patroni calls the hook.
func HooksOf(s dcs.Snapshot, path string) (map[string]Hook, error) {
	return all[Hook](s, Dir(path)+"/hooks")
}

// BeforeStopsOf returns the requests of running hooks, by member.
func BeforeStopsOf(s dcs.Snapshot, path string) (map[string]BeforeStop, error) {
	return all[BeforeStop](s, Dir(path)+"/beforestop")
}

// OperationOf returns the operation; false: there is none. One that cannot be read is there, with an error.
func OperationOf(s dcs.Snapshot, path string) (Operation, bool, error) {
	e, ok := s.Get(OperationKey(path))
	if !ok {
		return Operation{}, false, nil
	}
	o, err := Decode[Operation](e)
	return o, true, err
}

func all[T any](s dcs.Snapshot, dir string) (map[string]T, error) {
	out := map[string]T{}
	var errs []error
	for e := range s.All(dir) {
		r, err := Decode[T](e)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out[e.Key[len(dir)+1:]] = r
	}
	return out, errors.Join(errs...)
}

package record_test

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
)

const path = "/service/demo"

func snapshot(entries ...dcs.Entry) dcs.Snapshot { return dcs.NewSnapshot(time.Now(), entries) }

// trip writes a record and reads it back.
func trip[T any, P interface {
	*T
	record.Record
}](t *testing.T, r *T) {
	t.Helper()
	value := record.Encode(P(r))
	if !strings.Contains(string(value), `"v":1`) {
		t.Errorf("%s has no version", value)
	}
	back, err := record.Decode[T](dcs.Entry{Key: "/k", Value: value})
	if err != nil || !reflect.DeepEqual(back, *r) {
		t.Errorf("%s was read back as %+v, %v", value, back, err)
	}
}

func TestRoundTrip(t *testing.T) {
	addr := netip.MustParseAddrPort("10.0.0.1:5432")
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	epoch := patroni.Epoch{SystemID: "7268616322854375442", Timeline: 3, Created: 1 << 63}
	trip(t, &record.Fleet{Service: "write", Address: addr, Draining: true})
	trip(t, &record.Pooler{
		Abilities: []string{record.AbilityHold}, Service: "read", Address: addr, State: "held", Drained: true, Epoch: epoch,
		Target: []netip.AddrPort{addr}, Operation: "op", Since: at, Reason: "why", Error: "what",
		Instance: "i", Draining: true, Empty: true,
	})
	trip(t, &record.Pooler{Since: at})
	trip(t, &record.Operation{
		ID: "op", Kind: "switchover", From: "n1", To: "n2", Phase: record.Hold, Epoch: epoch, Limit: time.Second,
		Hook: true, Owner: "host:1", Since: at,
	})
	trip(t, &record.ControlPlane{Instance: "i", Services: map[string]record.ServiceState{
		"write": {
			Version: "v", Envoys: []string{"e"}, Applied: []string{"e"}, Rejected: map[string]string{"f": "why"},
			Draining: []string{"pgb-1"}, Kept: "why",
		},
	}})
	trip(t, &record.History{Moves: []record.Move{{
		At: at, From: "held", To: "routed", Target: []netip.AddrPort{addr}, Epoch: epoch, Cause: "c", Leader: "n1", Evidence: "e", Operation: "op",
	}}})
	trip(t, &record.Accepted{Epoch: epoch, By: "me", Since: at})
	trip(t, &record.Hook{})
	trip(t, &record.BeforeStop{ID: "x", Created: 7, Limit: time.Minute})
}

func TestDecode(t *testing.T) {
	for value, want := range map[string]string{ // part of the error; empty: none
		`{"v":1,"service":"write","address":"10.0.0.1:1","later":true}`: "", // a field that is not known yet
		`{"v":2,"service":"write"}`:                                     "version 2",
		`{"service":"write"}`:                                           "version 0",
		`{"v":-1}`:                                                      "version -1",
		`{"v":1,"service":7}`:                                           "service",
		`{"v":1,"service":"write","address":7}`:                         "address",
		`{"v":"1"}`:                                                     "not a pgconvoy record",
		``:                                                              "not a pgconvoy record",
		`nonsense`:                                                      "not a pgconvoy record",
		`null`:                                                          "version 0",
	} {
		r, err := record.Decode[record.Fleet](dcs.Entry{Key: "/k/e/y", Value: []byte(value)})
		switch {
		case want == "" && (err != nil || r.Service != "write"):
			t.Errorf("%s: %+v, %v", value, r, err)
		case want != "" && r != (record.Fleet{}):
			t.Errorf("%s: %+v with %v", value, r, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "/k/e/y")):
			t.Errorf("%s: error %v, want %q", value, err, want)
		}
	}
}

// One record that cannot be read takes no other with it, and is named.
func TestListings(t *testing.T) {
	entry := func(key, value string) dcs.Entry { return dcs.Entry{Key: key, Value: []byte(value)} }
	s := snapshot(
		entry(record.FleetKey(path, "a"), `{"v":1,"service":"write"}`),
		entry(record.FleetKey(path, "b"), `{"v":9}`),
		entry(record.FleetKey("/service/demo2", "c"), `{"v":1}`),
		entry(record.PoolerKey(path, "a"), `{"v":1,"state":"routed"}`),
		entry(record.ControlPlaneKey(path, "cp"), `{"v":1}`),
		entry(record.HookKey(path, "n1"), `{"v":1}`),
		entry(record.BeforeStopKey(path, "n1"), `{"v":1,"id":"x"}`),
		entry(record.OperationKey(path), `{"v":1,"id":"op"}`),
	)
	fleet, err := record.FleetOf(s, path)
	if len(fleet) != 1 || fleet["a"].Service != "write" || err == nil || !strings.Contains(err.Error(), "fleet/b") {
		t.Errorf("fleet %v, %v", fleet, err)
	}
	poolers, err := record.PoolersOf(s, path)
	if len(poolers) != 1 || poolers["a"].State != "routed" || err != nil {
		t.Errorf("poolers %v, %v", poolers, err)
	}
	if planes, err := record.ControlPlanesOf(s, path); len(planes) != 1 || err != nil {
		t.Errorf("control planes %v, %v", planes, err)
	}
	if hooks, err := record.HooksOf(s, path); len(hooks) != 1 || err != nil {
		t.Errorf("hooks %v, %v", hooks, err)
	}
	if stops, err := record.BeforeStopsOf(s, path); stops["n1"].ID != "x" || err != nil {
		t.Errorf("stops %v, %v", stops, err)
	}
	if o, ok, err := record.OperationOf(s, path); !ok || err != nil || o.ID != "op" {
		t.Errorf("operation %v, %v, %v", o, ok, err)
	}
	if _, ok, err := record.OperationOf(snapshot(), path); ok || err != nil {
		t.Errorf("an operation out of nothing: %v, %v", ok, err)
	}
	if _, ok, err := record.OperationOf(snapshot(entry(record.OperationKey(path), `{"v":9}`)), path); !ok || err == nil {
		t.Errorf("an operation of a newer program: %v, %v", ok, err)
	}
}

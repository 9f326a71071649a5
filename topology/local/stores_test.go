package local

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/leak"
	"github.com/pgconvoy/pgconvoy/internal/storetest"
	"github.com/pgconvoy/pgconvoy/topology"
)

// small is a stack of one of each.
var small = topology.Spec{Nodes: topology.NodesNamed(1), Poolers: topology.PoolersNamed(1, 0)}

// TestCallersStore: a small stack on a store of the caller's takes a free path, refuses one that is in use, and leaves
// nothing there.
func TestCallersStore(t *testing.T) {
	for kind, servers := range map[string]func(t *testing.T) *storetest.Servers{
		"etcd":      func(t *testing.T) *storetest.Servers { return storetest.Etcd(t, 1) },
		"consul":    func(t *testing.T) *storetest.Servers { return storetest.Consul(t, 1, nil) },
		"zookeeper": func(t *testing.T) *storetest.Servers { return storetest.ZooKeeper(t, 1, nil) },
	} {
		t.Run(kind, func(t *testing.T) {
			leak.Check(t)
			addr := servers(t).Addrs()[0]
			d := DCS{Kind: kind, Endpoints: []string{fmt.Sprintf("localhost:%d", addr.Port())}} // by name
			store, closed, err := d.Open()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(closed)
			if there := keys(t, store); len(there) > 0 {
				t.Fatalf("%q are in the new store", there)
			}
			spec := small
			spec.Path = "/own/shop"
			runBeside(t, Runner{DCS: d}, spec, func(ctx context.Context, s *Stack) error {
				if err := ping(ctx, s.WriteDSN()); err != nil {
					t.Error(err)
				}
				if got := s.DCS(); got.Kind != kind || !slices.Equal(got.Endpoints, d.at([]string{d.Endpoints[0]}).Endpoints) {
					t.Errorf("the store is said to be %v", got)
				}
				err := (&Runner{DCS: d}).Run(ctx, spec, func(context.Context, *Stack) error { return nil })
				if err == nil || !strings.Contains(err.Error(), "/own/shop is in use") || !strings.Contains(err.Error(), kind) {
					t.Errorf("a second cluster at the same path: %v, want an error that says so", err)
				}
				return nil
			})
			if left := keys(t, store); len(left) > 0 {
				t.Errorf("%q are left in the store", left)
			}
		})
	}
}

// TestDirKeepsStore: a stack that runs Consul or ZooKeeper comes back with its data, and only with the same store.
func TestDirKeepsStore(t *testing.T) {
	for _, kind := range []string{"consul", "zookeeper"} {
		t.Run(kind, func(t *testing.T) {
			r := Runner{Dir: filepath.Join(leak.TempDir(t), "stack"), DCS: DCS{Kind: kind}}
			key := small.WithDefaults().Path + "/initialize"
			var initialized string
			for range 2 {
				run(t, r, small, func(ctx context.Context, s *Stack) error {
					if !slices.Contains(s.Components(), kind+"-1") {
						t.Errorf("components %q, want the server of the store among them", s.Components())
					}
					snap, err := s.Store().Get(ctx, s.Spec().Path)
					if err != nil {
						return err
					}
					e, _ := snap.Get(key)
					if initialized != "" && string(e.Value) != initialized {
						t.Errorf("%s is %q, was %q", key, e.Value, initialized)
					}
					initialized = string(e.Value)
					return nil
				})
			}
			if initialized == "" {
				t.Errorf("%s was never there", key)
			}
			err := (&Runner{Dir: r.Dir}).Run(t.Context(), small, func(context.Context, *Stack) error { return nil })
			if err == nil || !strings.Contains(err.Error(), r.Dir+" holds the data of a store of kind "+kind) {
				t.Errorf("with another store: %v, want an error that says so", err)
			}
		})
	}
}

// keys are all keys that a stack could leave in a store.
func keys(t *testing.T, store dcs.Reader) []string {
	t.Helper()
	var keys []string
	for _, dir := range []string{"/own", "/pgconvoy"} {
		snap, err := store.Get(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		for e := range snap.All(dir) {
			keys = append(keys, e.Key)
		}
	}
	return keys
}

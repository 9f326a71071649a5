package local

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgconvoy/pgconvoy/internal/leak"
	"github.com/pgconvoy/pgconvoy/topology"
)

// TestBadInput: one error that names the field or the program and says what to do, before anything is started.
func TestBadInput(t *testing.T) {
	requirePrograms(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	used := l.Addr().(*net.TCPAddr).AddrPort()

	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	old := script(t, "pgbouncer", "echo PgBouncer 1.12.0")
	oldConsul := script(t, "consul", "echo Consul v1.9.3")
	mute := script(t, "envoy", "exit 1")

	for name, c := range map[string]struct {
		runner Runner
		spec   topology.Spec
		want   []string
	}{
		"scope with a slash":  {spec: topology.Spec{Path: "/service/a/b"}, want: []string{"Spec.Path", "/service/a/b", "slash"}},
		"relative path":       {spec: topology.Spec{Path: "demo"}, want: []string{"Path", "slash"}},
		"two nodes, one name": {spec: topology.Spec{Nodes: []topology.Node{{Name: "a"}, {Name: "a"}}}, want: []string{"Nodes[1].Name", "Nodes[0].Name"}},
		"ttl":                 {spec: topology.Spec{Timing: topology.Timing{TTL: 5}}, want: []string{"Timing.TTL", "20"}},
		"node as a server":    {spec: topology.Spec{Nodes: []topology.Node{{Name: "etcd-1"}}}, want: []string{"Spec.Nodes[0].Name", "etcd-1", "another component"}},
		"pooler as a server":  {runner: Runner{DCS: DCS{Kind: "consul"}}, spec: topology.Spec{Poolers: []topology.PgBouncer{{Name: "consul-2"}}}, want: []string{"Spec.Poolers[0].Name", "consul-2", "another component"}},
		"used port":           {spec: topology.Spec{Envoy: topology.Envoy{Write: used}}, want: []string{"Spec.Envoy.Write", used.String(), "in use", "another"}},
		"port of a node":      {spec: topology.Spec{Nodes: []topology.Node{{Name: "a", Postgres: used}}}, want: []string{"Nodes[0].Postgres", used.String()}},
		"foreign address":     {spec: topology.Spec{Envoy: topology.Envoy{Admin: netip.MustParseAddrPort("192.0.2.1:80")}}, want: []string{"Spec.Envoy.Admin", "192.0.2.1:80"}},
		"folder of somebody":  {runner: Runner{Dir: foreign}, want: []string{"Dir", foreign, "empty folder"}},
		"missing program":     {runner: Runner{Binaries: Binaries{Envoy: "/nowhere/envoy"}}, want: []string{"Envoy", "/nowhere/envoy", "Binaries.Envoy"}},
		"old program":         {runner: Runner{Binaries: Binaries{PgBouncer: old}}, want: []string{"PgBouncer 1.12.0", "too old", "1.19", "make setup"}},
		"unknown store":       {runner: Runner{DCS: DCS{Kind: "paper"}}, want: []string{"Runner.DCS.Kind", "paper", "zookeeper"}},
		"store without place": {runner: Runner{DCS: DCS{Kind: "etcd"}}, want: []string{"Runner.DCS.Endpoints is empty", "embedded"}},
		"place without store": {runner: Runner{DCS: DCS{Endpoints: []string{"127.0.0.1:2379"}}}, want: []string{"Runner.DCS.Endpoints is set", "etcd"}},
		"etcd with TLS":       {runner: Runner{DCS: DCS{Kind: "etcd", Endpoints: []string{"https://127.0.0.1:2379"}}}, want: []string{"Runner.DCS.Endpoints[0]", "https://127.0.0.1:2379", "TLS"}},
		"store with TLS":      {runner: Runner{DCS: DCS{Kind: "consul", Endpoints: []string{"https://127.0.0.1:8501"}}}, want: []string{"Runner.DCS.Endpoints[0]", "https://127.0.0.1:8501", "TLS"}},
		"store without port":  {runner: Runner{DCS: DCS{Kind: "zookeeper", Endpoints: []string{"127.0.0.1:1", "127.0.0.1"}}}, want: []string{"Runner.DCS.Endpoints[1]", "127.0.0.1:2379"}},
		"chroot":              {runner: Runner{DCS: DCS{Kind: "zookeeper", Endpoints: []string{"127.0.0.1:2181/us"}}}, want: []string{"Runner.DCS.Endpoints[0]", "127.0.0.1:2181/us"}},
		"members elsewhere":   {runner: Runner{Members: 3, DCS: DCS{Kind: "consul", Endpoints: []string{"127.0.0.1:8500"}}}, want: []string{"Members", "DCS.Endpoints"}},
		"missing Consul":      {runner: Runner{DCS: DCS{Kind: "consul"}, Binaries: Binaries{Consul: "/nowhere/consul"}}, want: []string{"Consul", "/nowhere/consul", "Binaries.Consul"}},
		"missing Java":        {runner: Runner{DCS: DCS{Kind: "zookeeper"}, Binaries: Binaries{Java: "/nowhere/java"}}, want: []string{"Java", "/nowhere/java", "Binaries.Java"}},
		"missing ZooKeeper":   {runner: Runner{DCS: DCS{Kind: "zookeeper"}, Binaries: Binaries{ZooKeeper: "/nowhere/zookeeper.jar"}}, want: []string{"ZooKeeper", "/nowhere/zookeeper.jar", "scripts/setup --stores", "Binaries.ZooKeeper"}},
		"old Consul":          {runner: Runner{DCS: DCS{Kind: "consul"}, Binaries: Binaries{Consul: oldConsul}}, want: []string{"Consul 1.9.3", "too old", "1.15.3", "scripts/setup --stores"}},
		"broken program":      {runner: Runner{Binaries: Binaries{Envoy: mute}}, want: []string{"Envoy", mute, "version"}},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.runner.Run(t.Context(), c.spec, func(context.Context, *Stack) error {
				t.Error("the stack was started")
				return nil
			})
			if err == nil {
				t.Fatal("no error")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("the error %q does not say %q", err, w)
				}
			}
		})
	}
	if _, err := os.Stat(filepath.Join(foreign, marker)); err == nil {
		t.Error("a folder of somebody else was written to")
	}
}

// TestFolderOfAnotherCluster: a stack's folder is taken again only for the same cluster, and by one stack at a time.
func TestFolderOfAnotherCluster(t *testing.T) {
	dir := filepath.Join(leak.TempDir(t), "stack")
	f, err := openFolder(dir, "/service/a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openFolder(dir, "/service/a"); err == nil || !strings.Contains(err.Error(), "another stack is running") {
		t.Errorf("a second stack in the folder: %v", err)
	}
	if err := f.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := openFolder(dir, "/service/b"); err == nil || !strings.Contains(err.Error(), "/service/a") {
		t.Errorf("another cluster in the folder: %v", err)
	}
	again, err := openFolder(dir, "/service/a")
	if err != nil {
		t.Fatal(err)
	}
	if again.secrets != f.secrets {
		t.Error("the passwords have changed")
	}
	if err := again.close(); err != nil {
		t.Error(err)
	}
	if st, err := os.Stat(filepath.Join(dir, marker)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the passwords are readable by others: %v %v", st, err)
	}
}

func script(t *testing.T, name, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

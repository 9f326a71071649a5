package envoyconf_test

import (
	"errors"
	"flag"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"

	"github.com/pgconvoy/pgconvoy/envoyconf"
	"github.com/pgconvoy/pgconvoy/envoyconf/internal/envoytest"
)

var update = flag.Bool("update", false, "write the golden files")

func addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func dynamic() envoyconf.Fleet {
	return envoyconf.Fleet{
		Node:          "envoy-1",
		Admin:         addr("127.0.0.1:9901"),
		ControlPlanes: []netip.AddrPort{addr("10.0.0.5:18000"), addr("10.0.0.6:18000")},
		Listeners: []envoyconf.Listener{
			{Service: "write", Listen: addr("0.0.0.0:5432")},
			{Service: "read", Listen: addr("0.0.0.0:5433")},
		},
	}
}

func static() envoyconf.Fleet {
	return envoyconf.Fleet{
		Admin: addr("127.0.0.1:9901"),
		Static: map[string][]envoyconf.Endpoint{
			"write": {{Addr: addr("10.0.0.2:6432")}, {Addr: addr("10.0.0.1:6432")}},
			"read":  {{Addr: addr("[2001:db8::1]:6433"), Health: envoyconf.Draining}, {Addr: addr("10.0.0.1:6433")}},
		},
		Listeners: []envoyconf.Listener{
			{Service: "write", Listen: addr("127.0.0.1:5432")},
			{Service: "write", Listen: addr("[::1]:5432")},
			{Service: "read", Listen: addr("127.0.0.1:5433")},
		},
		TLS: true, IOUring: true, MaxConnections: 500, ConnectTimeout: 2 * time.Second, CheckInterval: time.Second,
	}
}

var fleets = map[string]func() envoyconf.Fleet{"dynamic": dynamic, "static": static}

func TestBootstrapGolden(t *testing.T) {
	for name, fleet := range fleets {
		t.Run(name, func(t *testing.T) {
			got, err := envoyconf.L4{}.Bootstrap(fleet())
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Fatalf("differs from %s; if that is meant, run go test -update. Got:\n%s", file, got)
			}
		})
	}
}

func TestBootstrapIsValidForEnvoy(t *testing.T) {
	bin := envoytest.Binary(t)
	for name, fleet := range fleets {
		t.Run(name, func(t *testing.T) {
			b, err := envoyconf.L4{}.Bootstrap(fleet())
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "envoy.json")
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.CommandContext(t.Context(), bin, "--mode", "validate", "-c", file, "--disable-hot-restart").CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if strings.Contains(string(out), "deprecated") {
				t.Errorf("a field is deprecated:\n%s", out)
			}
		})
	}
}

func TestBootstrapRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		base   func() envoyconf.Fleet
		spoil  func(*envoyconf.Fleet)
		errors string
	}{
		{"no admin", dynamic, func(f *envoyconf.Fleet) { f.Admin = netip.AddrPort{} }, "Admin: no address"},
		{"no admin port", dynamic, func(f *envoyconf.Fleet) { f.Admin = addr("127.0.0.1:0") }, "Admin: 127.0.0.1:0 has no port"},
		{"no listener", dynamic, func(f *envoyconf.Fleet) { f.Listeners = nil }, "Listeners: none"},
		{"no service", dynamic, func(f *envoyconf.Fleet) { f.Listeners[0].Service = "" }, "Listeners[0].Service: has no name"},
		{"bad service", dynamic, func(f *envoyconf.Fleet) { f.Listeners[1].Service = "a.b" }, "Listeners[1].Service: \"a.b\""},
		{"no listen port", dynamic, func(f *envoyconf.Fleet) { f.Listeners[1].Listen = addr("0.0.0.0:0") }, "Listeners[1].Listen: 0.0.0.0:0 has no port"},
		{"zone", dynamic, func(f *envoyconf.Fleet) { f.Listeners[0].Listen = addr("[fe80::1%eth0]:5432") }, "Listeners[0].Listen: [fe80::1%eth0]:5432 has a zone"},
		{"two on one address", dynamic, func(f *envoyconf.Fleet) { f.Listeners[1].Listen = addr("127.0.0.1:5432") }, "Listeners[1].Listen: 127.0.0.1:5432 is taken by Listeners[0].Listen"},
		{"listener on admin", dynamic, func(f *envoyconf.Fleet) { f.Listeners[0].Listen = addr("0.0.0.0:9901") }, "Listeners[0].Listen: 0.0.0.0:9901 is taken by Admin"},
		{"mapped address", dynamic, func(f *envoyconf.Fleet) { f.Listeners[0].Listen = addr("[::ffff:127.0.0.1]:9901") }, "Listeners[0].Listen"},
		{"no source", dynamic, func(f *envoyconf.Fleet) { f.ControlPlanes = nil }, "ControlPlanes and Static: both empty"},
		{"two sources", static, func(f *envoyconf.Fleet) { f.ControlPlanes = []netip.AddrPort{addr("10.0.0.5:1")} }, "ControlPlanes and Static: both set"},
		{"no node", dynamic, func(f *envoyconf.Fleet) { f.Node = "" }, "Node: empty"},
		{"control plane", dynamic, func(f *envoyconf.Fleet) { f.ControlPlanes[1] = addr("0.0.0.0:18000") }, "ControlPlanes[1]: 0.0.0.0:18000 is no address to connect to"},
		{"control plane twice", dynamic, func(f *envoyconf.Fleet) { f.ControlPlanes[1] = f.ControlPlanes[0] }, "ControlPlanes[1]: 10.0.0.5:18000 occurs twice"},
		{"unknown service", static, func(f *envoyconf.Fleet) { f.Static["raed"] = f.Static["read"] }, "Static[\"raed\"]: no listener"},
		{"missing service", static, func(f *envoyconf.Fleet) { delete(f.Static, "read") }, "Static: no endpoint for Listeners[2].Service \"read\""},
		{"empty service", static, func(f *envoyconf.Fleet) { f.Static["read"] = nil }, "Static: no endpoint for Listeners[2].Service \"read\""},
		{"bad endpoint", static, func(f *envoyconf.Fleet) { f.Static["read"][0].Addr = netip.AddrPort{} }, "Static[\"read\"]: endpoint 0: Addr: no address"},
		{"endpoint twice", static, func(f *envoyconf.Fleet) { f.Static["write"][1] = f.Static["write"][0] }, "Static[\"write\"]: endpoint 1: Addr: 10.0.0.2:6432 occurs twice"},
		{"bad health", static, func(f *envoyconf.Fleet) { f.Static["write"][1].Health = 7 }, "Static[\"write\"]: endpoint 1: Health: Health(7) is unknown"},
		{"connect timeout", static, func(f *envoyconf.Fleet) { f.ConnectTimeout = -1 }, "ConnectTimeout: negative"},
		{"check interval", static, func(f *envoyconf.Fleet) { f.CheckInterval = -1 }, "CheckInterval: negative"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := c.base()
			c.spoil(&f)
			b, err := envoyconf.L4{}.Bootstrap(f)
			if err == nil || b != nil || !strings.HasPrefix(err.Error(), "envoyconf: "+c.errors) {
				t.Fatalf("got %d bytes, error %v, want prefix %q", len(b), err, c.errors)
			}
		})
	}
}

func TestAdjust(t *testing.T) {
	l := envoyconf.L4{Adjust: func(b *bootstrapv3.Bootstrap) error {
		b.GetNode().Cluster = "mine"
		return nil
	}}
	b, err := l.Bootstrap(dynamic())
	if err != nil || !strings.Contains(string(b), `"cluster": "mine"`) {
		t.Fatalf("%v\n%s", err, b)
	}
	own := errors.New("own")
	l.Adjust = func(*bootstrapv3.Bootstrap) error { return own }
	if _, err := l.Bootstrap(dynamic()); !errors.Is(err, own) {
		t.Fatalf("got %v", err)
	}
}

package patroni_test

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgconvoy/pgconvoy/internal/porttest"
	"github.com/pgconvoy/pgconvoy/patroni"
)

var update = flag.Bool("update", false, "write the golden files")

const binDir = "/usr/lib/postgresql/15/bin"

func nodeConfig() patroni.NodeConfig {
	return patroni.NodeConfig{
		Scope: "demo", Namespace: "/service", Name: "n1",
		REST: patroni.RESTConfig{
			Listen: netip.MustParseAddrPort("0.0.0.0:8008"), ConnectAddress: netip.MustParseAddrPort("10.0.0.1:8008"),
			Authentication: &patroni.Credentials{Username: "admin", Password: "yes"},
		},
		Etcd3: &patroni.Etcd3Config{Hosts: []string{"127.0.0.1:2379"}, Username: "patroni", Password: "0x1F"},
		Bootstrap: patroni.BootstrapConfig{
			DCS: map[string]any{
				"ttl": 30, "loop_wait": 10, "retry_timeout": 10, "maximum_lag_on_failover": 1 << 20, "synchronous_mode": true,
				"postgresql": map[string]any{"use_pg_rewind": true, "use_slots": true, "parameters": map[string]any{"max_connections": 200}},
			},
			InitDB:        []any{map[string]any{"encoding": "UTF8"}, "data-checksums"},
			PostBootstrap: "/etc/patroni/bootstrap.sh",
		},
		Postgres: patroni.PostgresConfig{
			Listen: netip.MustParseAddrPort("0.0.0.0:5432"), ConnectAddress: netip.MustParseAddrPort("10.0.0.1:5432"), ProxyAddress: "10.0.0.1:6432",
			DataDir: "/var/lib/postgresql/demo-n1", BinDir: binDir, Pgpass: "/var/lib/postgresql/demo-n1.pgpass",
			Authentication: patroni.Authentication{
				Superuser:   patroni.Credentials{Username: "postgres", Password: "it's 12:30 # o'clock"},
				Replication: patroni.Credentials{Username: "replicator", Password: "1e3"},
				Rewind:      &patroni.Credentials{Username: "rewind", Password: "~"},
			},
			Parameters: map[string]string{"unix_socket_directories": "/tmp", "log_min_messages": "warning"},
			HBA:        []string{"hostssl all all 10.0.0.0/8 scram-sha-256"},
			BaseBackup: []any{map[string]any{"checkpoint": "fast"}, "no-sync"},
			BeforeStop: "/usr/local/bin/before-stop",
		},
		Tags:  map[string]any{"nofailover": false, "clonefrom": true},
		Extra: map[string]any{"watchdog": map[string]any{"mode": "off"}},
	}
}

// goldens are the golden files: one for each store.
func goldens() map[string]patroni.NodeConfig {
	consul, zookeeper := nodeConfig(), nodeConfig()
	verify := false
	consul.Etcd3 = nil
	consul.Consul = &patroni.ConsulConfig{
		Host: "127.0.0.1:8500", Token: "0x1F", Datacenter: "on", Scheme: "https", CACert: "/etc/ca.pem", Cert: "/etc/c.pem", Key: "/etc/k.pem",
		Verify: &verify, Consistency: "consistent", Checks: []string{"serfHealth"},
		RegisterService: true, ServiceTags: []string{"1e3"}, ServiceCheckInterval: "7s", ServiceCheckTLSServerName: "n1.demo",
	}
	zookeeper.Etcd3 = nil
	zookeeper.ZooKeeper = &patroni.ZooKeeperConfig{
		Hosts: []string{"127.0.0.1:2181"}, UseTLS: true, CACert: "/etc/ca.pem", Cert: "/etc/c.pem", Key: "/etc/k.pem", KeyPassword: "0x1F", Verify: &verify,
		SetACLs: map[string][]string{"CN=n1": {"ALL"}}, AuthData: map[string]patroni.Secret{"digest": "patroni:0x1F"},
	}
	return map[string]patroni.NodeConfig{
		"testdata/patroni.yml": nodeConfig(), "testdata/patroni-consul.yml": consul, "testdata/patroni-zookeeper.yml": zookeeper,
	}
}

func TestNodeConfigGolden(t *testing.T) {
	for file, config := range goldens() {
		got, err := config.YAML()
		if err != nil {
			t.Fatal(err)
		}
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
			t.Errorf("%s differs (go test -run Golden -update):\n%s", file, got)
		}
	}
}

// python is an interpreter that has Patroni.
func python(t *testing.T) string {
	for _, dir := range []string{filepath.Join(os.Getenv("PGCONVOY_HOME"), "bin"), "/opt/pgconvoy/bin"} {
		if st, err := os.Stat(filepath.Join(dir, "patroni-python")); err == nil && st.Mode().IsRegular() {
			return filepath.Join(dir, "patroni-python")
		}
	}
	missing(t, "Patroni (patroni-python)")
	return ""
}

// postgresBin is the folder of PostgreSQL's programs.
func postgresBin(tb testing.TB) string {
	tb.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // the pattern is right
	if len(found) == 0 {
		p, err := exec.LookPath("initdb")
		if err != nil {
			missing(tb, "PostgreSQL")
		}
		found = []string{p}
	}
	return filepath.Dir(found[len(found)-1])
}

// missing skips the test, or fails it where the environment promises that everything is installed.
func missing(tb testing.TB, program string) {
	tb.Helper()
	if os.Getenv("PGCONVOY_REQUIRE") == "1" {
		tb.Fatalf("%s is not installed although PGCONVOY_REQUIRE=1: run `make setup`", program)
	}
	tb.Skipf("%s is not installed: run `make setup`", program)
}

// Patroni's own check, which wants its store to accept connections, programs in bin_dir and a folder for the data.
func TestPatroniAcceptsTheGoldenFiles(t *testing.T) {
	for file, of := range map[string]struct{ address, secret string }{
		"testdata/patroni.yml":           {"127.0.0.1:2379", "['etcd3']['password']"},
		"testdata/patroni-consul.yml":    {"127.0.0.1:8500", "['consul']['token']"},
		"testdata/patroni-zookeeper.yml": {"127.0.0.1:2181", "['zookeeper']['key_password']"},
	} {
		t.Run(filepath.Base(file), func(t *testing.T) { testPatroniAccepts(t, file, of.address, of.secret) })
	}
}

func testPatroniAccepts(t *testing.T, golden, address, secret string) {
	interpreter, bin := python(t), postgresBin(t)
	text, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	store, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	here := strings.NewReplacer(
		address, store.Addr().String(),
		"0.0.0.0:5432", fmt.Sprint("0.0.0.0:", porttest.Free(t, "0.0.0.0")), // Patroni wants nobody to listen there
		"0.0.0.0:8008", fmt.Sprint("0.0.0.0:", porttest.Free(t, "0.0.0.0")),
		"/var/lib/postgresql/demo-n1", filepath.Join(t.TempDir(), "data"),
		binDir, bin)
	file := filepath.Join(t.TempDir(), "patroni.yml")
	if err := os.WriteFile(file, []byte(here.Replace(string(text))), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), interpreter, "-m", "patroni", "--validate-config", "-i", file).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "" {
		t.Errorf("%v: %s", err, out)
	}

	// What looks like something else in YAML is still the text that it was.
	show := `import sys, yaml
c = yaml.safe_load(open(sys.argv[1]))
a = c['postgresql']['authentication']
print([c['restapi']['authentication']['password'], c` + secret + `, a['superuser']['password'], a['replication']['password'], a['rewind']['password']])`
	out, err = exec.CommandContext(t.Context(), interpreter, "-c", show, file).CombinedOutput()
	if want := `['yes', '0x1F', "it's 12:30 # o'clock", '1e3', '~']`; err != nil || strings.TrimSpace(string(out)) != want {
		t.Errorf("%v: %s, want %s", err, out, want)
	}
}

func TestNodeConfigRefusals(t *testing.T) {
	zero := netip.MustParseAddrPort("0.0.0.0:5432")
	for _, c := range []struct {
		field string
		spoil func(*patroni.NodeConfig)
	}{
		{"Scope", func(c *patroni.NodeConfig) { c.Scope = "" }},
		{"Scope", func(c *patroni.NodeConfig) { c.Scope = "a/b" }},
		{"Namespace", func(c *patroni.NodeConfig) { c.Namespace = "" }},
		{"Namespace", func(c *patroni.NodeConfig) { c.Namespace = "//" }},
		{"Name", func(c *patroni.NodeConfig) { c.Name = "" }},
		{"Name", func(c *patroni.NodeConfig) { c.Name = "a/b" }},
		{"Name", func(c *patroni.NodeConfig) { c.Name = "a,b" }},
		{"Name", func(c *patroni.NodeConfig) { c.Name = "__patroni_strict_sync_replica_placeholder__" }},
		{"REST.Listen", func(c *patroni.NodeConfig) { c.REST.Listen = netip.AddrPort{} }},
		{"REST.ConnectAddress", func(c *patroni.NodeConfig) { c.REST.ConnectAddress = zero }},
		{"REST.Authentication", func(c *patroni.NodeConfig) { c.REST.Authentication.Username = "" }},
		{"REST.Authentication", func(c *patroni.NodeConfig) { c.REST.Authentication.Password = "" }},
		{"Etcd3", func(c *patroni.NodeConfig) { c.Etcd3 = nil }},
		{`Extra["raft"]`, func(c *patroni.NodeConfig) { c.Extra["raft"] = map[string]any{} }},
		{`Extra["etcd3"]`, func(c *patroni.NodeConfig) { c.Extra["etcd3"] = map[string]any{} }},
		{"Etcd3", func(c *patroni.NodeConfig) { c.Consul = &patroni.ConsulConfig{Host: "127.0.0.1:8500"} }},
		{"ZooKeeper", func(c *patroni.NodeConfig) { c.ZooKeeper = &patroni.ZooKeeperConfig{Hosts: []string{"127.0.0.1:2181"}} }},
		{"Consul.Host", func(c *patroni.NodeConfig) { c.Etcd3, c.Consul = nil, &patroni.ConsulConfig{} }},
		{"Consul.Scheme", func(c *patroni.NodeConfig) {
			c.Etcd3, c.Consul = nil, &patroni.ConsulConfig{Host: "h:1", Scheme: "tls"}
		}},
		{"Consul.Consistency", func(c *patroni.NodeConfig) {
			c.Etcd3, c.Consul = nil, &patroni.ConsulConfig{Host: "h:1", Consistency: "strong"}
		}},
		{"Consul", func(c *patroni.NodeConfig) { c.Etcd3, c.Consul = nil, &patroni.ConsulConfig{Host: "h:1", Key: "/k"} }},
		{"ZooKeeper.Hosts", func(c *patroni.NodeConfig) { c.Etcd3, c.ZooKeeper = nil, &patroni.ZooKeeperConfig{} }},
		{"ZooKeeper", func(c *patroni.NodeConfig) {
			c.Etcd3, c.ZooKeeper = nil, &patroni.ZooKeeperConfig{Hosts: []string{"h:1"}, Key: "/k"}
		}},
		{"Etcd3.Hosts", func(c *patroni.NodeConfig) { c.Etcd3.Hosts = nil }},
		{"Etcd3.Hosts", func(c *patroni.NodeConfig) { c.Etcd3.Hosts = []string{""} }},
		{"Etcd3", func(c *patroni.NodeConfig) { c.Etcd3.Cert = "/c" }},
		{"Postgres.Listen", func(c *patroni.NodeConfig) { c.Postgres.Listen = netip.MustParseAddrPort("10.0.0.1:0") }},
		{"Postgres.ConnectAddress", func(c *patroni.NodeConfig) { c.Postgres.ConnectAddress = zero }},
		{"Postgres.DataDir", func(c *patroni.NodeConfig) { c.Postgres.DataDir = "" }},
		{"Postgres.DataDir", func(c *patroni.NodeConfig) { c.Postgres.DataDir = "data" }},
		{"Postgres.Authentication.Superuser.Username", func(c *patroni.NodeConfig) { c.Postgres.Authentication.Superuser.Username = "" }},
		{"Postgres.Authentication.Replication.Username", func(c *patroni.NodeConfig) { c.Postgres.Authentication.Replication.Username = "" }},
		{"Postgres.Authentication.Rewind.Username", func(c *patroni.NodeConfig) { c.Postgres.Authentication.Rewind.Username = "" }},
		{"Extra", func(c *patroni.NodeConfig) { c.Extra["scope"] = "other" }},
		{"Extra", func(c *patroni.NodeConfig) { c.Extra["postgresql"] = map[string]any{} }},
	} {
		config := nodeConfig()
		c.spoil(&config)
		if _, err := config.YAML(); err == nil || !strings.Contains(err.Error(), "NodeConfig."+c.field+" ") || len(strings.Split(err.Error(), "\n")) != 1 {
			t.Errorf("%s: %v", c.field, err)
		}
	}
	all := patroni.NodeConfig{}.Validate()
	joined, ok := errors.AsType[interface {
		error
		Unwrap() []error
	}](all)
	if !ok || len(joined.Unwrap()) < 9 {
		t.Errorf("not every field at once: %v", all)
	}
}

func TestNodeConfigWithoutTheOptionalParts(t *testing.T) {
	c := nodeConfig()
	c.Bootstrap, c.Tags, c.Etcd3, c.REST.Authentication = patroni.BootstrapConfig{}, nil, nil, nil
	c.Extra = map[string]any{"zookeeper": map[string]any{"hosts": []string{"10.0.0.9:2181"}}}
	text, err := c.YAML()
	if err != nil || strings.Contains(string(text), "null") || strings.Contains(string(text), "bootstrap") || !strings.Contains(string(text), "zookeeper:") {
		t.Errorf("%v\n%s", err, text)
	}
	c.Bootstrap.PostBootstrap = "/x"
	if text, err = c.YAML(); err != nil || !strings.Contains(string(text), "dcs: {}") {
		t.Errorf("%v\n%s", err, text)
	}
}

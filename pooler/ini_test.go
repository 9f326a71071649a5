package pooler_test

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/pooler"
)

// sample has one of everything, with values that need care.
func sample() pooler.Ini {
	return pooler.Ini{
		Settings: pooler.Params{
			"pool_mode": "transaction", "server_login_retry": "0", "query_wait_timeout": "120",
			"unix_socket_dir": "", "server_reset_query": `SELECT 'it''s'; -- "x"`,
		},
		PeerID: 2,
		Databases: []pooler.Entry{
			{Name: "app", Params: pooler.Params{"host": "10.0.0.1", "port": "5432", "user": "u", "password": `it's a "secret"\ 'x'`, "connect_query": "SELECT 1"}},
			{Name: "app-2.x_Y", Params: pooler.Params{"host": "10.0.0.1,10.0.0.2", "port": "5432", "dbname": "APP two", "pool_size": "5"}},
			{Name: "plain"},
			{Name: "*", Params: pooler.Params{"host": "fd00::1", "port": "5432"}},
		},
		Users: []pooler.Entry{{Name: "u", Params: pooler.Params{"pool_mode": "session", "max_user_connections": "3"}}},
		Peers: []pooler.Peer{
			{ID: 1, Addr: netip.MustParseAddrPort("10.0.1.1:6432")},
			{ID: 2, Addr: netip.MustParseAddrPort("[fd00::2]:6433"), PoolSize: 4},
		},
	}
}

func TestIniGolden(t *testing.T) {
	data, err := sample().Bytes()
	must(t, err)
	golden(t, "sample.ini", data)
	back, err := pooler.ParseIni(data)
	must(t, err)
	want := sample()
	want.Databases[2].Params = pooler.Params{}
	if !reflect.DeepEqual(back, want) {
		t.Errorf("read back as\n%#v", back)
	}
}

func TestIniRefuses(t *testing.T) {
	long := strings.Repeat("x", 64)
	entry := func(name, key, value string) pooler.Ini {
		return pooler.Ini{Databases: []pooler.Entry{{Name: name, Params: pooler.Params{key: value}}}}
	}
	for _, c := range []struct {
		name  string
		ini   pooler.Ini
		field string
	}{
		{"name with a blank", entry("a b", "host", "x"), "Databases[0].Name"},
		{"name with a quote", entry("a'b", "host", "x"), "Databases[0].Name"},
		{"name not ASCII", entry("ä", "host", "x"), "Databases[0].Name"},
		{"empty name", entry("", "host", "x"), "Databases[0].Name"},
		{"long name", entry(long, "host", "x"), "Databases[0].Name"},
		{"star in a name", entry("a*", "host", "x"), "Databases[0].Name"},
		{"reserved name", entry("pgbouncer", "host", "x"), "Databases[0].Name"},
		{"name twice", pooler.Ini{Databases: []pooler.Entry{{Name: "a"}, {Name: "a"}}}, "Databases[1].Name"},
		{"empty value", entry("a", "password", ""), `Params["password"]`},
		{"line break", entry("a", "password", "hunter2\nx"), `Params["password"]`},
		{"carriage return", entry("a", "password", "hunter2\r"), `Params["password"]`},
		{"NUL", entry("a", "password", "hunter2\x00"), `Params["password"]`},
		{"key with a blank", entry("a", "host port", "x"), `Params["host port"]`},
		{"key upper case", entry("a", "Host", "x"), `Params["Host"]`},
		{"user star", pooler.Ini{Users: []pooler.Entry{{Name: "*"}}}, "Users[0].Name"},
		{"setting with a line break", pooler.Ini{Settings: pooler.Params{"logfile": "x\n[databases]"}}, `Settings["logfile"]`},
		{"setting with a blank", pooler.Ini{Settings: pooler.Params{"logfile": "x "}}, `Settings["logfile"]`},
		{"setting's name", pooler.Ini{Settings: pooler.Params{"log file": "x"}}, `Settings["log file"]`},
		{"peer id twice", pooler.Ini{PeerID: 1, Settings: pooler.Params{"peer_id": "1"}}, `Settings["peer_id"]`},
		{"peer id too large", pooler.Ini{PeerID: 16384}, "PeerID"},
		{"peer's id", pooler.Ini{Peers: []pooler.Peer{{ID: 0, Addr: netip.MustParseAddrPort("10.0.0.1:1")}}}, "Peers[0].ID"},
		{"peer's address", pooler.Ini{Peers: []pooler.Peer{{ID: 1}}}, "Peers[0].Addr"},
		{"peer's zone", pooler.Ini{Peers: []pooler.Peer{{ID: 1, Addr: netip.MustParseAddrPort("[fe80::1%eth0]:1")}}}, "Peers[0].Addr"},
		{"peer's pool", pooler.Ini{Peers: []pooler.Peer{{ID: 1, Addr: netip.MustParseAddrPort("10.0.0.1:1"), PoolSize: -1}}}, "Peers[0].PoolSize"},
		{"include", pooler.Ini{Includes: []string{"a\nb"}}, "Includes[0]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := c.ini.Bytes()
			if !errors.Is(err, pooler.ErrInvalid) || !strings.Contains(err.Error(), c.field) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("error %v, want ErrInvalid that names %s and no value", err, c.field)
			}
		})
	}
}

// What is written is what PgBouncer reads.
func TestPgBouncerLoadsWhatIsWritten(t *testing.T) {
	pb := startBouncer(t, sample(), nil)
	ctx := within(t, 10*time.Second)
	c, err := pooler.Open(ctx, pb.console())
	must(t, err)
	defer c.Close()
	type database struct {
		Name     string `show:"name"`
		Host     string `show:"host"`
		Database string `show:"database"`
		User     string `show:"force_user"`
	}
	databases, err := pooler.Show[database](ctx, c, "DATABASES")
	must(t, err)
	got := fmt.Sprintf("%q", databases)
	for _, want := range []string{`{"app" "10.0.0.1" "app" "u"}`, `{"app-2.x_Y" "10.0.0.1,10.0.0.2" "APP two" ""}`, `{"plain" "" "plain" ""}`} {
		if !strings.Contains(got, want) {
			t.Errorf("SHOW DATABASES: %s\nwant %s", got, want)
		}
	}
	peers, err := c.ShowRows(ctx, "PEERS")
	must(t, err)
	if got := fmt.Sprintf("%s", peers.Values); got != "[[1 10.0.1.1 6432 20] [2 fd00::2 6433 4]]" {
		t.Errorf("SHOW PEERS: %s", got)
	}
	if got := setting(t, pb, "peer_id"); got != "2" {
		t.Errorf("peer_id %s", got)
	}
	if got := setting(t, pb, "server_reset_query"); got != sample().Settings["server_reset_query"] {
		t.Errorf("server_reset_query %s", got)
	}
}

func TestPrintingHidesSecrets(t *testing.T) {
	i := sample()
	i.Databases[0].Params["password"] = "hunter2"
	users := pooler.UserList{{Name: "u", Password: "hunter2"}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, v := range []any{i, &i, i.Databases, users, users[0], users[0].Password} {
			if text := fmt.Sprintf(verb, v); strings.Contains(text, "hunter2") || strings.Contains(text, "68756e74657232") {
				t.Errorf("%s of %T shows the password: %s", verb, v, text)
			}
		}
	}
	if text := fmt.Sprint(i.Databases[0]); !strings.Contains(text, "host=10.0.0.1") {
		t.Errorf("nothing is left to read: %s", text)
	}
}

func TestIniWriteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pgbouncer.ini")
	must(t, sample().WriteFile(path))
	if m := mode(t, path); m != 0o600 {
		t.Errorf("mode %v, want 0600", m)
	}
}

func ExampleIni() {
	ini := pooler.Ini{
		Settings: pooler.Params{
			"listen_addr": "10.0.1.1", "listen_port": "6432", "auth_file": "/etc/pgbouncer/userlist.txt",
			"pool_mode": "transaction", "server_login_retry": "0",
		},
		PeerID:    1,
		Databases: []pooler.Entry{{Name: "app", Params: pooler.Params{"user": "app", "password": "it's"}}},
		Peers: []pooler.Peer{
			{ID: 1, Addr: netip.MustParseAddrPort("10.0.1.1:6432")},
			{ID: 2, Addr: netip.MustParseAddrPort("10.0.1.2:6432")},
		},
	}
	data, err := ini.Bytes()
	if err != nil {
		fmt.Println(err)
		return
	}
	// The zero Target: clients get an error until an agent has found the primary.
	data, err = pooler.Rewrite(data, nil, pooler.Target{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(string(data))
	// Output:
	// [pgbouncer]
	// auth_file = /etc/pgbouncer/userlist.txt
	// listen_addr = 10.0.1.1
	// listen_port = 6432
	// pool_mode = transaction
	// server_login_retry = 0
	// peer_id = 1
	//
	// [databases]
	// ; pgconvoy target=refuse mark=
	// app = user=app password='it''s' host=127.0.0.1 port=1
	//
	// [peers]
	// 1 = host=10.0.1.1 port=6432
	// 2 = host=10.0.1.2 port=6432
}

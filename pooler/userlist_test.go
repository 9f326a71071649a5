package pooler_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconvoy/pgconvoy/pooler"
)

func TestUserList(t *testing.T) {
	l := pooler.UserList{{"admin", `p"w`}, {`a "b"; c`, ""}, {"ü", `"`}, {"s", "SCRAM-SHA-256$4096:c2FsdA==$a:b"}}
	data, err := l.Bytes()
	must(t, err)
	want := "\"admin\" \"p\"\"w\"\n\"a \"\"b\"\"; c\" \"\"\n\"ü\" \"\"\"\"\n\"s\" \"SCRAM-SHA-256$4096:c2FsdA==$a:b\"\n"
	if string(data) != want {
		t.Errorf("got\n%s\nwant\n%s", data, want)
	}
	back, err := pooler.ParseUserList(append([]byte("; a comment \"x\"\n\n"), data...))
	must(t, err)
	if !reflect.DeepEqual(back, l) {
		t.Errorf("read back %v", back)
	}
	path := filepath.Join(t.TempDir(), "userlist.txt")
	must(t, l.WriteFile(path))
	if m := mode(t, path); m != 0o600 {
		t.Errorf("mode %v, want 0600", m)
	}
}

func TestUserListRefuses(t *testing.T) {
	for name, l := range map[string]pooler.UserList{
		"Name":           {{"", "hunter2"}},
		"[0].Name":       {{strings.Repeat("x", 128), "hunter2"}},
		"want 1 to":      {{"a\nb", "hunter2"}},
		"twice":          {{"a", "hunter2"}, {"a", "hunter2"}},
		"(a).Password":   {{"a", "hunter2\n"}},
		"at most 995":    {{"a", pooler.Secret(strings.Repeat("hunter2", 150))}},
		"[0] (b).Passwo": {{"b", "hunter2\x00"}},
	} {
		_, err := l.Bytes()
		if !errors.Is(err, pooler.ErrInvalid) || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, text := range []string{`"a`, `"a" "b`, `a b`, `"a"`, "\"a\" x \"b\""} {
		if _, err := pooler.ParseUserList([]byte(text)); !errors.Is(err, pooler.ErrInvalid) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// Every user of a list can log in to a real PgBouncer, by SCRAM, with a password that needs care.
func TestPgBouncerReadsTheUserList(t *testing.T) {
	users := pooler.UserList{{"admin", `it's "so" $a\b ; #`}, {`q"uote`, `""`}, {"plain", "x"}}
	pb := startBouncer(t, pooler.Ini{
		Settings:  pooler.Params{"auth_type": "scram-sha-256", "admin_users": "admin, plain"},
		Databases: []pooler.Entry{{Name: "app", Params: pooler.Params{"host": "127.0.0.1", "port": "1"}}},
	}, users)
	ctx := within(t, 10*time.Second)
	config, err := pgconn.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d sslmode=disable", pb.port))
	must(t, err)
	config.User, config.Password = users[0].Name, string(users[0].Password)
	local := &pooler.Local{Config: pb.config, Connect: pooler.ConnectWith(config)}
	must(t, local.Hold(ctx))
	must(t, local.Route(ctx, pooler.Target{Mark: "m"}))
	config.User, config.Password, config.Database = users[1].Name, string(users[1].Password), "app"
	if _, err := pgconn.ConnectConfig(ctx, config); err == nil || strings.Contains(err.Error(), "SASL") || !strings.Contains(err.Error(), "connect") {
		t.Errorf("a user whose name has a quote: %v, want past the password and refused by the server", err)
	}
	config.Password = "wrong-hunter2"
	_, err = (&pooler.Local{Config: pb.config, Connect: pooler.ConnectWith(config)}).State(ctx)
	if err == nil || strings.Contains(err.Error(), "wrong-hunter2") {
		t.Errorf("a wrong password: %v", err)
	}
}

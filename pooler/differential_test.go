package pooler_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/pooler"
)

// ParseIni accepts and refuses what PgBouncer does, and both see the same databases. The exceptions are marked: what
// PgBouncer swallows without a word is refused here.
func TestParseIniAgreesWithPgBouncer(t *testing.T) {
	pb := startBouncer(t, pooler.Ini{}, nil)
	base, err := os.ReadFile(pb.config)
	must(t, err)
	ctx := within(t, 30*time.Second)
	c, err := pooler.Open(ctx, pb.console())
	must(t, err)
	defer c.Close()
	for i, tc := range []struct {
		text     string
		stricter bool
	}{
		{text: "a = host=1.1.1.1 port=1 dbname=x"},
		{text: "a=host=1.1.1.1"},
		{text: "  a\t= \thost  =  1.1.1.1  port = 2  "},
		{text: "a = host='1.1.1.1' dbname='it''s'"},
		{text: "a = host='1.1.1.1"},
		{text: "a = host='1.1.1.1'x port=3", stricter: true},
		{text: "a = host=''"},
		{text: "a = host="},
		{text: "a = host=\tx"},
		{text: "a = host"},
		{text: "a = =x"},
		{text: "a ="},
		{text: "a"},
		{text: "a b = host=x"},
		{text: "a = host=x\r\nb = host=y\r"},
		{text: "; c = host=x\n# d = host=y\n  ;e"},
		{text: "a = host=x ; dbname=y"},
		{text: "a = host=x;y"},
		{text: "a = host=x host=y"},
		{text: "a = host=x\na = dbname=z"},
		{text: "a.b-c_1 = dbname=\\x"},
		{text: "\"a\" = host=x"},
		{text: "ä = host=x"},
		{text: "[users]\nu = pool_mode=session\n[databases]\na = host=x"},
		{text: "[users\n"},
		{text: "[databases] a = host=x"},
		{text: "[databases]a = host=x"},
		{text: "a = host=x\f\vb = host=y"},
		{text: "a = host=x\n\f\vb = host=y"},
	} {
		sentinel := fmt.Sprintf("sentinel%d", i)
		file := string(base) + "\n[databases]\n" + tc.text + "\n[databases]\n" + sentinel + " =\n"
		must(t, os.WriteFile(pb.config, []byte(file), 0o600))
		_ = c.Exec(ctx, "RELOAD") // 1.25 and later say when it failed; the sentinel says so for all
		type row struct {
			Name     string `show:"name"`
			Host     string `show:"host"`
			Port     string `show:"port"`
			Database string `show:"database"`
		}
		rows, err := pooler.Show[row](ctx, c, "DATABASES")
		must(t, err)
		theirs, accepted := map[string]row{}, false
		for _, r := range rows {
			accepted = accepted || r.Name == sentinel
			if r.Name != "pgbouncer" {
				theirs[r.Name] = r
			}
		}
		ini, err := pooler.ParseIni([]byte(file))
		if tc.stricter {
			if err == nil || !accepted {
				t.Errorf("%q: is no exception any more: %v, PgBouncer accepts: %v", tc.text, err, accepted)
			}
			continue
		}
		if (err == nil) != accepted {
			t.Errorf("%q: ours: %v, PgBouncer accepts: %v", tc.text, err, accepted)
			continue
		}
		if !accepted {
			continue
		}
		for _, e := range ini.Databases {
			r := theirs[e.Name]
			port, database := e.Params["port"], e.Params["dbname"]
			if port == "" {
				port = "5432"
			}
			if database == "" {
				database = e.Name
			}
			if r.Name == "" || r.Host != e.Params["host"] || r.Port != port || r.Database != database {
				t.Errorf("%q: ours %s %v, PgBouncer's %+v", tc.text, e.Name, e.Params, r)
			}
			delete(theirs, e.Name)
		}
		for name := range theirs {
			if !strings.HasPrefix(name, "sentinel") {
				t.Errorf("%q: PgBouncer has %s too", tc.text, name)
			}
		}
	}
}

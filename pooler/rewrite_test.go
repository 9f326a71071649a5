package pooler_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/pgconvoy/pgconvoy/pooler"
)

func TestRewriteGolden(t *testing.T) {
	file, err := os.ReadFile("testdata/users-own.ini")
	must(t, err)
	to := parseTarget(t, "10.0.0.7:5433")
	to.Mark = "7312:4:99 höher"
	out, err := pooler.Rewrite(file, nil, to)
	must(t, err)
	golden(t, "users-own.routed.ini", out)
	got, known, err := pooler.ReadTarget(out, nil)
	must(t, err)
	if !known || !got.SameHosts(to) || got.Mark != to.Mark {
		t.Errorf("read back %v, %v", got, known)
	}
	again, err := pooler.Rewrite(out, nil, to)
	must(t, err)
	if string(again) != string(out) {
		t.Errorf("a second rewrite changed it:\n%s", again)
	}
	back, err := pooler.Rewrite(out, []string{"first"}, parseTarget(t, "10.0.0.1:5432", "10.0.0.2:5432"))
	must(t, err)
	golden(t, "users-own.first.ini", back)
}

func TestRewriteLines(t *testing.T) {
	to := parseTarget(t, "10.0.0.7:5433")
	const mark = "; pgconvoy target=10.0.0.7:5433 mark="
	for _, c := range []struct{ name, in, out string }{
		{"bare", "[databases]\na = host=1.1.1.1 port=1\n", "[databases]\n" + mark + "\na = host=10.0.0.7 port=5433\n"},
		{"no host", "[databases]\na = dbname=x\n", "[databases]\n" + mark + "\na = dbname=x host=10.0.0.7 port=5433\n"},
		{"nothing at all", "[databases]\na =\n", "[databases]\n" + mark + "\na = host=10.0.0.7 port=5433\n"},
		{"quoted and spaced", "[databases]\n  a  =\thost = '1.1.1.1'   port=1  \n", "[databases]\n" + mark + "\n  a  =\thost = 10.0.0.7   port=5433  \n"},
		{"equal but quoted stays", "[databases]\na=host='10.0.0.7' port='5433'\n", "[databases]\n" + mark + "\na=host='10.0.0.7' port='5433'\n"},
		{"host twice", "[databases]\na = host=x host=y port=1\n", "[databases]\n" + mark + "\na = host=10.0.0.7 host=10.0.0.7 port=5433\n"},
		{"host inside a value", "[databases]\na = password=' host=x ' port=1\n", "[databases]\n" + mark + "\na = password=' host=x ' port=5433 host=10.0.0.7\n"},
		{"comments stay", "; a = host=1.1.1.1\n[databases]\n# b\na = host=x ; host=y\n", ""},
		{"CRLF", "[databases]\r\na = host=x port=1\r\n", "[databases]\r\n" + mark + "\r\na = host=10.0.0.7 port=5433\r\n"},
		{"no last line break", "[databases]\na = host=x", "[databases]\n" + mark + "\na = host=10.0.0.7 port=5433"},
		{"all on one line", "[databases] a = host=x", "[databases] a = host=10.0.0.7 port=5433\n" + mark + "\n"},
		{"old mark", "[databases]\n; pgconvoy target=1.1.1.1:1 mark=old one\na = host=x port=1\n", "[databases]\n" + mark + "\na = host=10.0.0.7 port=5433\n"},
		{"two sections", "[databases]\na = host=x port=1\n[users]\nu = pool_mode=session\n[databases]\nb = host=y port=1\n", "[databases]\n" + mark + "\na = host=10.0.0.7 port=5433\n[users]\nu = pool_mode=session\n[databases]\nb = host=10.0.0.7 port=5433\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := pooler.Rewrite([]byte(c.in), nil, to)
			if c.out == "" {
				if !errors.Is(err, pooler.ErrInvalid) {
					t.Errorf("got %q, %v; PgBouncer has no comments within a line", out, err)
				}
				return
			}
			must(t, err)
			if string(out) != c.out {
				t.Errorf("got\n%s\nwant\n%s", out, c.out)
			}
		})
	}
}

func TestRewriteRefuses(t *testing.T) {
	good := "[databases]\na = host=1.1.1.1\n"
	for _, c := range []struct {
		name, file string
		databases  []string
		to         pooler.Target
		want       string
	}{
		{"no section", "[pgbouncer]\n", nil, pooler.Target{}, "[databases]"},
		{"empty section", "[databases]\n", nil, pooler.Target{}, "no database"},
		{"absent database", good, []string{"b"}, pooler.Target{}, `"b"`},
		{"syntax", good + "nonsense\n", nil, pooler.Target{}, "line 3"},
		{"section", good + "[users\n", nil, pooler.Target{}, "line 3"},
		{"quote", good + "b = password='x\n", nil, pooler.Target{}, "line 3"},
		{"NUL", good + "\x00", nil, pooler.Target{}, "NUL"},
		{"ports", good, nil, parseTarget(t, "10.0.0.1:5432", "10.0.0.2:5433"), "one port"},
		{"zone", good, nil, parseTarget(t, "[fe80::1%eth0]:5432"), "zone"},
		{"no port", good, nil, parseTarget(t, "10.0.0.1:0"), "Hosts[0]"},
		{"any address", good, nil, parseTarget(t, "0.0.0.0:5432"), "Hosts[0]"},
		{"refusing address", good, nil, parseTarget(t, "127.0.0.1:1"), "leave Hosts empty"},
		{"mark with a line break", good, nil, pooler.Target{Mark: "a\nb = host=x"}, "Mark"},
		{"mark with a blank", good, nil, pooler.Target{Mark: " a"}, "Mark"},
		{"long mark", good, nil, pooler.Target{Mark: strings.Repeat("x", 513)}, "Mark"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := pooler.Rewrite([]byte(c.file), c.databases, c.to)
			if !errors.Is(err, pooler.ErrInvalid) || !strings.Contains(err.Error(), c.want) || out != nil {
				t.Errorf("got %q, %v, want ErrInvalid with %q", out, err, c.want)
			}
		})
	}
}

func TestReadTargetDistrustsAMarkThatDisagrees(t *testing.T) {
	for _, c := range []struct {
		name, file string
		want       string
		known      bool
	}{
		{"agrees", "[databases]\n; pgconvoy target=1.1.1.1:5432 mark=m\na = host=1.1.1.1\n", "1.1.1.1:5432 (m)", true},
		{"edited by hand", "[databases]\n; pgconvoy target=1.1.1.1:5432 mark=m\na = host=1.1.1.2\n", "1.1.1.2:5432", true},
		{"damaged", "[databases]\n; pgconvoy target=what mark=m\na = host=1.1.1.2\n", "1.1.1.2:5432", true},
		{"refuses", "[databases]\n; pgconvoy target=refuse mark=m\na = host=127.0.0.1 port=1\n", "refuse (m)", true},
		{"without a mark line", "[databases]\na = host=127.0.0.1 port=1\n", "refuse", true},
		{"mapped", "[databases]\na = host=::ffff:1.1.1.1\n", "1.1.1.1:5432", true},
		{"name", "[databases]\na = host=db.example.com\n", "refuse", false},
		{"socket", "[databases]\na =\n", "refuse", false},
		{"two places", "[databases]\na = host=1.1.1.1\nb = host=1.1.1.2\n", "refuse", false},
		{"another's mark", "[databases]\n; pgconvoy databases=a target=1.1.1.1:5432 mark=m\na = host=1.1.1.1\n", "1.1.1.1:5432", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, known, err := pooler.ReadTarget([]byte(c.file), nil)
			must(t, err)
			if got.String() != c.want || known != c.known {
				t.Errorf("got %v, %v, want %s, %v", got, known, c.want, c.known)
			}
		})
	}
}

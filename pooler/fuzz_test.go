package pooler_test

import (
	"bytes"
	"net/netip"
	"os"
	"reflect"
	"testing"

	"github.com/pgconvoy/pgconvoy/pooler"
)

// FuzzRewrite: a file that can be read can be rewritten, reads back with the target in it and everything else as it
// was, and is stable.
func FuzzRewrite(f *testing.F) {
	for _, name := range []string{"testdata/users-own.ini", "testdata/sample.ini"} {
		text, err := os.ReadFile(name)
		must(f, err)
		f.Add(text, "7312:4:99")
	}
	f.Add([]byte("[databases] a=host=x"), "")
	f.Add([]byte("[databases]\r\na = host=x port=1\r\n; pgconvoy target=refuse mark=x\r\n"), "m mark=n")
	f.Add([]byte("[databases]\n'a b' = host='x''y'  port =\t'1'\n"), "m")
	to := pooler.Target{Hosts: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:5432")}}
	f.Fuzz(func(t *testing.T, file []byte, mark string) {
		to := to
		to.Mark = mark
		before, parseErr := pooler.ParseIni(file)
		out, err := pooler.Rewrite(file, nil, to)
		if err != nil {
			return
		}
		got, known, err := pooler.ReadTarget(out, nil)
		if err != nil || !known || !reflect.DeepEqual(got, to) {
			t.Fatalf("read back %v, %v, %v\n%q", got, known, err, out)
		}
		again, err := pooler.Rewrite(out, nil, to)
		if err != nil || !bytes.Equal(again, out) {
			t.Fatalf("not stable: %v\n%q\n%q", err, out, again)
		}
		if parseErr != nil {
			return
		}
		after, err := pooler.ParseIni(out)
		if err != nil {
			t.Fatalf("does not parse any more: %v\n%q", err, out)
		}
		for i := range before.Databases {
			for _, key := range []string{"host", "port"} {
				delete(before.Databases[i].Params, key)
				delete(after.Databases[i].Params, key)
			}
		}
		if !reflect.DeepEqual(before, after) {
			t.Fatalf("more than the target changed:\n%q\n%q", file, out)
		}
	})
}

// FuzzIni: what is written reads back the same.
func FuzzIni(f *testing.F) {
	f.Add("app", "password", `it's a "secret"\ 'x'`, "logfile", "/x y")
	f.Add("*", "host", "a,b", "x", "")
	f.Fuzz(func(t *testing.T, name, key, value, setting, text string) {
		i := pooler.Ini{Settings: pooler.Params{setting: text}, Databases: []pooler.Entry{{Name: name, Params: pooler.Params{key: value}}}}
		data, err := i.Bytes()
		if err != nil || setting == "peer_id" {
			return
		}
		back, err := pooler.ParseIni(data)
		if err != nil || !reflect.DeepEqual(back, i) {
			t.Fatalf("%v\n%q", err, data)
		}
	})
}

// FuzzUserList: what is written reads back the same, and reading anything never fails badly.
func FuzzUserList(f *testing.F) {
	f.Add("a", `p"w`, []byte("; x\n\"a\" \"b\" rest\n"))
	f.Add(`""`, "", []byte(`"`))
	f.Fuzz(func(t *testing.T, name, password string, file []byte) {
		l := pooler.UserList{{Name: name, Password: pooler.Secret(password)}, {Name: name + "2"}}
		if data, err := l.Bytes(); err == nil {
			if back, err := pooler.ParseUserList(data); err != nil || !reflect.DeepEqual(back, l) {
				t.Fatalf("%v\n%q", err, data)
			}
		}
		l, err := pooler.ParseUserList(file)
		if err != nil {
			return
		}
		if data, err := l.Bytes(); err == nil {
			if back, err := pooler.ParseUserList(data); err != nil || len(back) != len(l) {
				t.Fatalf("%v\n%q\n%q", err, file, data)
			}
		}
	})
}

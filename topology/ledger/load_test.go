package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestLoadRefused(t *testing.T) {
	for _, c := range []struct {
		load Load
		want string // the field that the error names
	}{
		{Load{Writers: -1}, "Load.Writers"},
		{Load{Writers: 10_001}, "Load.Writers"},
		{Load{Every: -time.Second}, "Load.Every"},
		{Load{Readers: -1}, "Load.Readers"},
		{Load{Readers: 10_001}, "Load.Readers"},
		{Load{ReadEvery: -time.Second}, "Load.ReadEvery"},
		{Load{Readers: 1, Read: "postgres://u:s3cret@[::1"}, "Load.Read is"},
		{Load{Timeout: -time.Second}, "Load.Timeout"},
		{Load{Table: "a.b.c"}, "Load.Table"},
		{Load{Table: "a."}, "Load.Table"},
		{Load{Table: strings.Repeat("x", 60)}, "Load.Table"},
		{Load{Direct: []string{"host=localhost", "postgres://u:s3cret@[::1"}}, "Load.Direct[1]"},
	} {
		_, err := Start(t.Context(), "host=127.0.0.1 port=1", c.load)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want an error that names %s", c.load, err, c.want)
		}
	}
}

func TestPasswordsStayInside(t *testing.T) {
	const secret = "s3cret"
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for _, dsn := range []string{
		"postgres://u:s3cret@[::1",
		"postgres://u:pass/s3cret@h/db",
		"host=h password='s3cret",
		"postgres://u:s3cret@127.0.0.1:1/db",
	} {
		for _, c := range []struct {
			dsn  string
			load Load
		}{
			{dsn, Load{Direct: []string{dsn}}},
			{"postgres://u:s3cret@127.0.0.1:1/db", Load{Readers: 1, Read: dsn}},
		} {
			l, err := Start(ctx, c.dsn, c.load)
			if err == nil {
				t.Fatalf("%s: no error", dsn)
			}
			if s := fmt.Sprintf("%v %+v %+v", err, err, l); strings.Contains(s, secret) {
				t.Errorf("the error shows the password: %s", s)
			}
		}
	}
	load := Load{Read: "postgres://u:s3cret@h/db", Direct: []string{"postgres://u:s3cret@h/db"}}
	j, err := json.Marshal(load)
	if err != nil {
		t.Fatal(err)
	}
	if s := fmt.Sprintf("%v %+v %#v %s", load, load, load, j); strings.Contains(s, secret) {
		t.Errorf("the load shows the password: %s", s)
	}
}

func TestLoadDefaults(t *testing.T) {
	l := Load{Every: time.Second}.withDefaults()
	if l.Writers != 20 || l.Readers != 0 || l.ReadEvery != time.Second || l.Table != "pgconvoy_ledger" || l.Timeout != time.Minute {
		t.Errorf("%v", l)
	}
	if l := (Load{ReadEvery: time.Second}).withDefaults(); l.Every != 10*time.Millisecond || l.ReadEvery != time.Second {
		t.Errorf("%v", l)
	}
}

func TestQuoted(t *testing.T) {
	for _, c := range []struct{ table, want string }{
		{"a", `"a_probe"`},
		{"s.a", `"s"."a_probe"`},
		{`od"d`, `"od""d_probe"`},
	} {
		if got := quoted(c.table, probeSuffix); got != c.want {
			t.Errorf("quoted(%q) = %s, want %s", c.table, got, c.want)
		}
	}
}

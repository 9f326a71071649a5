package patroni_test

import (
	"encoding/json"
	"math"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/pgconvoy/pgconvoy/patroni"
)

// Each decoder: whatever the value is, what was read keeps its own rules, and written again as Patroni writes it, it is
// read as the same. A field that nobody knows changes nothing.

func FuzzParseMember(f *testing.F) {
	for _, v := range []string{
		`{"conn_url":"postgres://10.0.0.1:5432/postgres","api_url":"http://10.0.0.1:8008/patroni","state":"running","role":"master","version":"2.1.7","xlog_location":67419584,"timeline":2}`,
		`{"conn_url":"postgres://[::1]/postgres","proxy_url":"postgres://h:6432/x","tags":{"nosync":true},"pending_restart":true,"pause":true,"replication_state":"streaming"}`,
		`{"conn_kwargs":{"host":"::1","port":"5433"}}`, `{"conn_kwargs":{"host":7}}`, `{"timeline":"3","xlog_location":-1}`,
		`postgres://10.0.0.1:5432/postgres?application_name=http://10.0.0.1:8008/patroni`, `postgres:///x`, `{"role":7,"state":"stopped"}`,
		`{"conn_url":"postgres://]:5432/"}`, `{"conn_url":"postgres://a:b:5432/"}`, "{}", "null", "", "{", "\xff",
	} {
		f.Add(v)
	}
	read := func(t *testing.T, v string) patroni.Member {
		m, ok := parse(t, path, map[string]string{"members/n1": v}).Member("n1")
		if !ok {
			t.Fatal("a member is not one because of its value")
		}
		return m
	}
	f.Fuzz(func(t *testing.T, v string) {
		m := read(t, v)
		for _, hostport := range []string{m.Host, m.Proxy} {
			if host, _, err := net.SplitHostPort(hostport); hostport != "" && (err != nil || host == "") {
				t.Errorf("%q is not host:port: %v", hostport, err)
			}
		}
		if m.API != "" && !strings.HasPrefix(m.API, "http://") && !strings.HasPrefix(m.API, "https://") {
			t.Errorf("API is %q", m.API)
		}
		if m.Role == "master" {
			t.Error("an old name")
		}
		if a, err := m.Addr(); err == nil && !a.IsValid() {
			t.Errorf("%q is the address %v", m.Host, a)
		}
		if m.Streaming() && !m.Running() || m.Route() != m.Host && m.Route() != m.Proxy {
			t.Errorf("%+v", m)
		}
		again := read(t, written(t, map[string]any{
			"conn_url": urlOf(m.Host), "proxy_url": urlOf(m.Proxy), "api_url": m.API, "state": m.State, "role": m.Role, "version": m.Version,
			"timeline": m.Timeline, "xlog_location": m.LSN, "replication_state": m.ReplicationState, "tags": m.Tags,
			"pending_restart": m.PendingRestart, "pause": m.Paused,
		}))
		if !reflect.DeepEqual(again, m) {
			t.Errorf("%q is %+v, read again %+v", v, m, again)
		}
		if extended, ok := extend(v); ok {
			if got := read(t, extended); !reflect.DeepEqual(got, m) {
				t.Errorf("%s is %+v, without the unknown field %+v", extended, got, m)
			}
		}
	})
}

func FuzzParseConfig(f *testing.F) {
	for _, v := range []string{
		`{"ttl":30,"loop_wait":10,"retry_timeout":10,"maximum_lag_on_failover":1048576,"pause":"on","synchronous_mode":"quorum"}`,
		`{"ttl":"20","synchronous_mode":true,"synchronous_mode_strict":"yes","master_start_timeout":1,"primary_start_timeout":2,"failsafe_mode":1}`,
		`{"standby_cluster":{"host":"h"},"synchronous_mode":true}`, `{"standby_cluster":{"host":""}}`, `{"ttl":-1,"loop_wait":1e300}`,
		`{"ttl":"NaN"}`, `{"ttl":"Inf"}`, `{"maximum_lag_on_failover":-1}`, "{}", "null", "[]", "", "{",
	} {
		f.Add(v)
	}
	read := func(t *testing.T, v string) patroni.Config {
		return parse(t, path, map[string]string{"config": v}).Config
	}
	f.Fuzz(func(t *testing.T, v string) {
		c := read(t, v)
		for _, d := range []time.Duration{c.TTL, c.LoopWait, c.RetryTimeout, c.PrimaryStartTimeout} {
			if d < 0 || d > math.MaxInt32*time.Second {
				t.Errorf("%v in %+v", d, c)
			}
		}
		if c.Synchronous != "" && c.Synchronous != "on" && c.Synchronous != "quorum" || c.StandbyCluster && c.Synchronous != "" {
			t.Errorf("%+v", c)
		}
		if c.Raw != nil && string(c.Raw) != v {
			t.Errorf("the whole document is %q, was %q", c.Raw, v)
		}
		document := map[string]any{
			"ttl": c.TTL.Seconds(), "loop_wait": c.LoopWait.Seconds(), "retry_timeout": c.RetryTimeout.Seconds(),
			"primary_start_timeout": c.PrimaryStartTimeout.Seconds(), "maximum_lag_on_failover": c.MaximumLag, "pause": c.Paused,
			"synchronous_mode": map[string]any{"": false, "on": true, "quorum": "quorum"}[c.Synchronous], "synchronous_mode_strict": c.SynchronousStrict,
			"failsafe_mode": c.Failsafe,
		}
		if c.StandbyCluster {
			document["standby_cluster"] = map[string]string{"host": "h"}
		}
		same := func(what string, got patroni.Config) {
			t.Helper()
			got.Raw, c.Raw = nil, nil
			near := func(a, b time.Duration) bool { return (a - b).Abs() <= time.Microsecond } // seconds are a float
			if near(got.TTL, c.TTL) && near(got.LoopWait, c.LoopWait) && near(got.RetryTimeout, c.RetryTimeout) &&
				near(got.PrimaryStartTimeout, c.PrimaryStartTimeout) {
				got.TTL, got.LoopWait, got.RetryTimeout, got.PrimaryStartTimeout = c.TTL, c.LoopWait, c.RetryTimeout, c.PrimaryStartTimeout
			}
			if !reflect.DeepEqual(got, c) {
				t.Errorf("%q is %+v, %s %+v", v, c, what, got)
			}
		}
		same("read again", read(t, written(t, document)))
		if extended, ok := extend(v); ok {
			same("with an unknown field", read(t, extended))
		}
	})
}

func FuzzParseSync(f *testing.F) {
	for _, v := range []string{
		`{"leader":"n1","sync_standby":"n2,n3","quorum":1}`, `{"leader":"n1","sync_standby":null}`, `{"leader":"n1","sync_standby":" n2 ,, N3","quorum":"2"}`,
		`{"sync_standby":"n2"}`, `{"leader":"n1","quorum":99999999999999999999}`, `{"leader":7,"sync_standby":"n2"}`, "{}", "null", "", "{",
	} {
		f.Add(v)
	}
	read := func(t *testing.T, v string) patroni.Sync { return parse(t, path, map[string]string{"sync": v}).Sync }
	f.Fuzz(func(t *testing.T, v string) {
		s := read(t, v)
		if s.Leader == "" && !reflect.DeepEqual(s, patroni.Sync{}) {
			t.Errorf("not in use, and %+v", s)
		}
		if s.Quorum < 0 || s.Has("") {
			t.Errorf("%+v", s)
		}
		for _, name := range s.Standbys {
			if name == "" || name != strings.TrimSpace(name) || strings.Contains(name, ",") || !s.Has(name) {
				t.Errorf("standby %q of %+v", name, s)
			}
		}
		again := read(t, written(t, map[string]any{"leader": s.Leader, "sync_standby": strings.Join(s.Standbys, ","), "quorum": s.Quorum}))
		if !reflect.DeepEqual(again, s) {
			t.Errorf("%q is %+v, read again %+v", v, s, again)
		}
		if extended, ok := extend(v); ok {
			if got := read(t, extended); !reflect.DeepEqual(got, s) {
				t.Errorf("%s is %+v, without the unknown field %+v", extended, got, s)
			}
		}
	})
}

func FuzzParseFailover(f *testing.F) {
	for _, v := range []string{
		`{"leader":"n1","member":"n2","scheduled_at":"2026-07-24T12:00:00+00:00"}`, `{"leader":"n1","member":null}`, `{"member":"n2"}`, `n1:n2`, `n1:`, `:n2`, `n1`,
		`{"leader":"n1","scheduled_at":"soon"}`, `{"leader":"n1","scheduled_at":"2026-07-24 12:00:00.5"}`, `{"leader":"n1","scheduled_at":"2026-07-24T12:00Z"}`,
		"{}", "null", "7", "[", "", "{",
	} {
		f.Add(v)
	}
	read := func(t *testing.T, v string) patroni.Failover {
		return parse(t, path, map[string]string{"failover": v}).Failover
	}
	f.Fuzz(func(t *testing.T, v string) {
		o := read(t, v)
		if o.Leader != strings.ToValidUTF8(o.Leader, "") || o.Candidate != strings.ToValidUTF8(o.Candidate, "") {
			return // the form before JSON has any bytes, and JSON cannot
		}
		document := map[string]any{"leader": o.Leader, "member": o.Candidate}
		if !o.ScheduledAt.IsZero() {
			document["scheduled_at"] = o.ScheduledAt.Format(time.RFC3339Nano)
		}
		again := read(t, written(t, document))
		if again.Leader != o.Leader || again.Candidate != o.Candidate || !again.ScheduledAt.Equal(o.ScheduledAt) {
			t.Errorf("%q is %+v, read again %+v", v, o, again)
		}
		if extended, ok := extend(v); ok {
			if got := read(t, extended); !reflect.DeepEqual(got, o) {
				t.Errorf("%s is %+v, without the unknown field %+v", extended, got, o)
			}
		}
	})
}

func FuzzParseHistory(f *testing.F) {
	for _, v := range []string{
		`[[1,67108864,"no recovery target specified","2026-07-24T12:00:00.123456+00:00","n2"],[2,134217728,"r"]]`, `[[1,2]]`, `[[1]]`, `[[0,1]]`, `[["1","2"]]`,
		`[[4294967296,1]]`, `[[1,18446744073709551615,7,7,7]]`, `[[1,2,null],null,{},[]]`, "[]", "null", "{}", "", "[",
	} {
		f.Add(v)
	}
	read := func(t *testing.T, v string) []patroni.HistoryLine {
		return parse(t, path, map[string]string{"history": v}).History
	}
	f.Fuzz(func(t *testing.T, v string) {
		lines := read(t, v)
		rows := [][]any{}
		for _, l := range lines {
			if l.Timeline == 0 {
				t.Errorf("%+v of %q", l, v)
			}
			at := ""
			if !l.At.IsZero() {
				at = l.At.Format(time.RFC3339Nano)
			}
			rows = append(rows, []any{l.Timeline, l.LSN, l.Reason, at, l.Leader})
		}
		again := read(t, written(t, rows))
		if len(again) != len(lines) {
			t.Fatalf("%q is %+v, read again %+v", v, lines, again)
		}
		for i, l := range lines {
			if !again[i].At.Equal(l.At) {
				t.Errorf("%q is %v, read again %v", v, l.At, again[i].At)
			}
			if again[i].At = l.At; again[i] != l {
				t.Errorf("%q is %+v, read again %+v", v, l, again[i])
			}
		}
	})
}

func FuzzParseOptime(f *testing.F) {
	for _, c := range [][2]string{
		{`{"optime":67108864,"slots":{"n2":1}}`, ""},
		{`{"optime":"9"}`, "8"},
		{"12", "8"},
		{"", "8"},
		{"0", "8"},
		{"{", "8"},
		{`{"optime":-1}`, "8"},
		{"18446744073709551616", "-1"},
		{"null", "null"},
	} {
		f.Add(c[0], c[1])
	}
	read := func(t *testing.T, status, legacy string) uint64 {
		return parse(t, path, map[string]string{"status": status, "optime/leader": legacy}).Optime
	}
	f.Fuzz(func(t *testing.T, status, legacy string) {
		n := read(t, status, legacy)
		if again := read(t, written(t, map[string]any{"optime": n}), legacy); again != n {
			t.Errorf("%q, %q is %d, read again %d", status, legacy, n, again)
		}
		if extended, ok := extend(status); ok {
			if got := read(t, extended, legacy); got != n {
				t.Errorf("%s is %d, without the unknown field %d", extended, got, n)
			}
		}
	})
}

// FuzzAddr: what is taken for an address is one, whole, and written such that it is read as the same.
func FuzzAddr(f *testing.F) {
	for _, s := range []string{"10.0.0.1:5432", "[::1]:5432", "[fe80::1%eth0]:1", "[::ffff:10.0.0.1]:5432", "db1:5432", "10.0.0.1", ":5432", "10.0.0.1:0", "010.0.0.1:1", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := patroni.Member{Name: "n1", Host: s}.Addr()
		if err != nil {
			if a != (netip.AddrPort{}) || !strings.Contains(err.Error(), "n1") {
				t.Errorf("%q: %v, %v", s, a, err)
			}
			return
		}
		if again, err := (patroni.Member{Host: a.String()}).Addr(); err != nil || again != a || !a.IsValid() {
			t.Errorf("%q is %v, read again %v, %v", s, a, again, err)
		}
	})
}

func written(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func urlOf(hostport string) string {
	if hostport == "" {
		return ""
	}
	return (&url.URL{Scheme: "postgres", Host: hostport, Path: "/postgres"}).String()
}

// extend adds a field that no version of Patroni has to a JSON object; false: v is none.
func extend(v string) (string, bool) {
	var fields map[string]json.RawMessage
	if !utf8.ValidString(v) || json.Unmarshal([]byte(v), &fields) != nil || fields == nil {
		return "", false
	}
	v = strings.TrimSpace(v)
	comma := ","
	if len(fields) == 0 {
		comma = ""
	}
	return `{"pgconvoy_unknown":{"a":[1,"b"]}` + comma + v[1:], true
}

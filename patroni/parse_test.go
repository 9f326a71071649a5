package patroni_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/memory"
	"github.com/pgconvoy/pgconvoy/patroni"
)

// parse decodes a directory that holds these values.
func parse(tb testing.TB, path string, values map[string]string) patroni.Cluster {
	tb.Helper()
	var entries []dcs.Entry
	for key, value := range values {
		entries = append(entries, dcs.Entry{Key: path + "/" + key, Value: []byte(value), Version: dcs.Version{Created: 7, Modified: 9}})
	}
	c, err := patroni.Parse(path, dcs.NewSnapshot(time.Now(), entries))
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func TestParseMember(t *testing.T) {
	for _, c := range []struct {
		name, value string
		want        patroni.Member
	}{
		{
			"2.1, a primary",
			`{"conn_url":"postgres://10.0.0.1:5432/postgres","api_url":"http://10.0.0.1:8008/patroni","state":"running","role":"master","version":"2.1.7","xlog_location":67419584,"timeline":2}`,
			patroni.Member{Host: "10.0.0.1:5432", API: "http://10.0.0.1:8008", State: "running", Role: "primary", Version: "2.1.7", LSN: 67419584, Timeline: 2},
		},
		{
			"3.3, a replica, TLS, tags, a restart is pending",
			`{"conn_url":"postgres://db1.example:5433/postgres","api_url":"https://db1.example:8008/patroni","state":"running","role":"replica","version":"3.3.11","tags":{"nofailover":true,"clonefrom":"x","prio":3},"replication_state":"streaming","pending_restart":true,"pending_restart_reason":{"max_connections":{"old_value":"100","new_value":"200"}},"xlog_location":9223372036854775807,"timeline":4294967295}`,
			patroni.Member{
				Host: "db1.example:5433", API: "https://db1.example:8008", State: "running", Role: "replica", Version: "3.3.11", ReplicationState: "streaming",
				Tags: map[string]any{"nofailover": true, "clonefrom": "x", "prio": 3.0}, PendingRestart: true, LSN: 9223372036854775807, Timeline: 4294967295,
			},
		},
		{
			"4.1, promoted, paused, with a proxy and fields that are not known yet",
			`{"conn_url":"postgres://10.0.0.1:5432/postgres","api_url":"http://10.0.0.1:8008/patroni","proxy_url":"postgres://10.0.0.1:6432/postgres","state":"running","role":"promoted","version":"4.1.5","xlog_location":9007199254740993,"receive_lsn":1,"replay_lsn":2,"timeline":5,"pause":true,"checkpoint_after_promote":false,"future":{"a":[1]}}`,
			patroni.Member{
				Host: "10.0.0.1:5432", Proxy: "10.0.0.1:6432", API: "http://10.0.0.1:8008", State: "running", Role: "promoted", Version: "4.1.5",
				LSN: 9007199254740993, Timeline: 5, Paused: true,
			},
		},
		{"IPv6, no port", `{"conn_url":"postgres://[2001:db8::1]/postgres"}`, patroni.Member{Host: "[2001:db8::1]:5432"}},
		{"conn_kwargs", `{"conn_kwargs":{"host":"2001:db8::1","port":5433}}`, patroni.Member{Host: "[2001:db8::1]:5433"}},
		{"conn_kwargs, a port in quotes", `{"conn_kwargs":{"host":"h","port":"5433"}}`, patroni.Member{Host: "h:5433"}},
		{"conn_kwargs without a port", `{"conn_kwargs":{"host":"h","port":null}}`, patroni.Member{Host: "h:5432"}},
		{
			"before JSON", `postgres://u:p@10.0.0.1:5432/postgres?x=y&application_name=http%3A//10.0.0.1%3A8008/patroni`,
			patroni.Member{Host: "10.0.0.1:5432", API: "http://10.0.0.1:8008"},
		},
		{"before JSON, no API", `postgresql://10.0.0.1/`, patroni.Member{Host: "10.0.0.1:5432"}},
		{"broken", `{"conn_url":"postgres://10.0.0.1:5432/postgres"`, patroni.Member{}},
		{"empty", ``, patroni.Member{}},
		{"not an object", `[1]`, patroni.Member{}},
		{
			"wrong types take nothing else with them", `{"state":5,"timeline":"x","xlog_location":-1,"tags":[],"pause":"no","role":"replica","conn_url":"postgres://h/"}`,
			patroni.Member{Role: "replica", Host: "h:5432"},
		},
		{"numbers in quotes, and too large ones", `{"timeline":4294967297,"xlog_location":"18446744073709551615"}`, patroni.Member{LSN: 18446744073709551615}},
		{"a float is no position", `{"xlog_location":1.5e3,"timeline":null}`, patroni.Member{}},
		{"an API that is none", `{"api_url":"javascript:alert(1)"}`, patroni.Member{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := parse(t, path, map[string]string{"members/n1": c.value}).Members
			c.want.Name = "n1"
			if len(m) != 1 || !reflect.DeepEqual(m[0], c.want) {
				t.Errorf("%+v\nwant %+v", m, c.want)
			}
		})
	}
}

func TestParseConfig(t *testing.T) {
	defaults := patroni.Config{
		TTL: 30 * time.Second, LoopWait: 10 * time.Second, RetryTimeout: 10 * time.Second,
		MaximumLag: 1 << 20, PrimaryStartTimeout: 300 * time.Second,
	}
	with := func(change func(*patroni.Config)) patroni.Config {
		c := defaults
		change(&c)
		return c
	}
	for _, c := range []struct {
		value string
		want  patroni.Config
	}{
		{`{}`, defaults},
		{
			`{"ttl":20,"loop_wait":1,"retry_timeout":3,"maximum_lag_on_failover":9007199254740993,"primary_start_timeout":0,"postgresql":{"use_slots":true}}`,
			with(func(c *patroni.Config) {
				c.TTL, c.LoopWait, c.RetryTimeout, c.MaximumLag, c.PrimaryStartTimeout = 20*time.Second, time.Second, 3*time.Second, 9007199254740993, 0
			}),
		},
		{`{"ttl":"20","loop_wait":2.5,"retry_timeout":-3,"maximum_lag_on_failover":"x"}`, with(func(c *patroni.Config) { c.TTL, c.LoopWait = 20*time.Second, 2500*time.Millisecond })},
		{`{"ttl":1e300,"loop_wait":null,"retry_timeout":[]}`, defaults},
		{`{"master_start_timeout":60}`, with(func(c *patroni.Config) { c.PrimaryStartTimeout = time.Minute })},
		{`{"master_start_timeout":60,"primary_start_timeout":5}`, with(func(c *patroni.Config) { c.PrimaryStartTimeout = 5 * time.Second })},
		{`{"pause":true,"failsafe_mode":"on"}`, with(func(c *patroni.Config) { c.Paused, c.Failsafe = true, true })},
		{`{"pause":"Yes"}`, with(func(c *patroni.Config) { c.Paused = true })},
		{`{"pause":1}`, with(func(c *patroni.Config) { c.Paused = true })},
		{`{"pause":false,"failsafe_mode":null}`, defaults},
		{`{"synchronous_mode":true,"synchronous_mode_strict":true}`, with(func(c *patroni.Config) { c.Synchronous, c.SynchronousStrict = "on", true })},
		{`{"synchronous_mode":"on"}`, with(func(c *patroni.Config) { c.Synchronous = "on" })},
		{`{"synchronous_mode":"Quorum"}`, with(func(c *patroni.Config) { c.Synchronous = "quorum" })},
		{`{"synchronous_mode":"off"}`, defaults},
		{`{"standby_cluster":{"host":"10.1.0.1","port":5432},"synchronous_mode":true}`, with(func(c *patroni.Config) { c.StandbyCluster = true })},
		{`{"standby_cluster":{"restore_command":"cp %f %p"}}`, with(func(c *patroni.Config) { c.StandbyCluster = true })},
		{`{"standby_cluster":{"primary_slot_name":"x","host":""}}`, defaults},
		{`{"standby_cluster": { }}`, defaults},
		{`{"standby_cluster":null}`, defaults},
		{`{"standby_cluster":true}`, defaults},
	} {
		c.want.Raw = json.RawMessage(c.value)
		if got := parse(t, path, map[string]string{"config": c.value}).Config; !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\n%+v\nwant %+v", c.value, got, c.want)
		}
	}
	for _, value := range []string{"", "null", "[]", `{"ttl":`, "5"} {
		if got := parse(t, path, map[string]string{"config": value}).Config; !reflect.DeepEqual(got, defaults) {
			t.Errorf("%q: %+v", value, got)
		}
	}
}

func TestParseSync(t *testing.T) {
	for _, c := range []struct {
		value string
		want  patroni.Sync
	}{
		{`{"leader":"n1","sync_standby":"n2"}`, patroni.Sync{Leader: "n1", Standbys: []string{"n2"}}},
		{`{"leader":"n1","quorum":1,"sync_standby":"n2, N3,"}`, patroni.Sync{Leader: "n1", Standbys: []string{"n2", "N3"}, Quorum: 1}},
		{`{"leader":"n1","quorum":"2","sync_standby":null}`, patroni.Sync{Leader: "n1", Quorum: 2}},
		{`{"leader":"","quorum":1,"sync_standby":"n2"}`, patroni.Sync{}},
		{`{"leader":null,"sync_standby":null,"quorum":null}`, patroni.Sync{}},
		{`{}`, patroni.Sync{}},
		{``, patroni.Sync{}},
		{`{"leader":`, patroni.Sync{}},
	} {
		if got := parse(t, path, map[string]string{"sync": c.value}).Sync; !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", c.value, got, c.want)
		}
	}
	s := patroni.Sync{Standbys: []string{"n2", "N3"}}
	if !s.Has("N2") || !s.Has("n3") || s.Has("n1") || s.Has("") {
		t.Errorf("%+v", s)
	}
}

func TestParseFailover(t *testing.T) {
	at := time.Date(2026, 7, 24, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		value string
		want  patroni.Failover
	}{
		{`{"leader":"n1","member":"n2"}`, patroni.Failover{Leader: "n1", Candidate: "n2"}},
		{`{"member":"n2"}`, patroni.Failover{Candidate: "n2"}},
		{`{"leader":"n1","scheduled_at":"2026-07-24T14:00:00+02:00"}`, patroni.Failover{Leader: "n1", ScheduledAt: at}},
		{`{"leader":"n1","member":"n2","scheduled_at":"2026-07-24T12:00:00.000000+00:00"}`, patroni.Failover{Leader: "n1", Candidate: "n2", ScheduledAt: at}},
		{`{"leader":"n1","scheduled_at":"2026-07-24T12:00+00:00"}`, patroni.Failover{Leader: "n1", ScheduledAt: at}},
		{`{"leader":"n1","scheduled_at":"2026-07-24 12:00:00+00:00"}`, patroni.Failover{Leader: "n1", ScheduledAt: at}},
		{`{"leader":"n1","scheduled_at":"2026-07-24T12:00:00+0000"}`, patroni.Failover{Leader: "n1", ScheduledAt: at}},
		{`{"leader":"n1","scheduled_at":"some day"}`, patroni.Failover{}}, // not "now"
		{`{"leader":"n1","scheduled_at":null}`, patroni.Failover{Leader: "n1"}},
		{`n1:n2`, patroni.Failover{Leader: "n1", Candidate: "n2"}},
		{` n1 : n2 `, patroni.Failover{Leader: "n1", Candidate: "n2"}},
		{`n1`, patroni.Failover{Leader: "n1"}},
		{`:n2`, patroni.Failover{Candidate: "n2"}},
		{`{}`, patroni.Failover{}},
		{``, patroni.Failover{}},
		{`{"leader":`, patroni.Failover{}},
		{`[]`, patroni.Failover{}},
		{`7`, patroni.Failover{}},
	} {
		got := parse(t, path, map[string]string{"failover": c.value}).Failover
		if got.Leader != c.want.Leader || got.Candidate != c.want.Candidate || !got.ScheduledAt.Equal(c.want.ScheduledAt) {
			t.Errorf("%s: %+v, want %+v", c.value, got, c.want)
		}
	}
}

func TestParseHistory(t *testing.T) {
	const value = `[[1,67108864,"no recovery target specified"],
		[2,9007199254740993,"no recovery target specified","2026-07-24T12:00:00.123456+00:00"],
		[3,134217728,"no recovery target specified","2026-07-24T13:00:00+00:00","n2"],
		[4,5,null,null,null], ["x",5], [], 7, [4294967297, 5], [6, "70"]]`
	at := func(h, us int) time.Time { return time.Date(2026, 7, 24, h, 0, 0, us*1000, time.UTC) }
	const reason = "no recovery target specified"
	want := []patroni.HistoryLine{
		{Timeline: 1, LSN: 67108864, Reason: reason},
		{Timeline: 2, LSN: 9007199254740993, Reason: reason, At: at(12, 123456)},
		{Timeline: 3, LSN: 134217728, Reason: reason, At: at(13, 0), Leader: "n2"},
		{Timeline: 4, LSN: 5},
		{Timeline: 6, LSN: 70},
	}
	got := parse(t, path, map[string]string{"history": value}).History
	if !slices.EqualFunc(got, want, func(a, b patroni.HistoryLine) bool {
		same := a.At.Equal(b.At)
		a.At = b.At
		return same && a == b
	}) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	for _, value := range []string{"", "[]", "{}", "[[1,", "null"} {
		if got := parse(t, path, map[string]string{"history": value}).History; got != nil {
			t.Errorf("%q: %+v", value, got)
		}
	}
}

func TestParseOptime(t *testing.T) {
	for _, c := range []struct {
		status, legacy string
		want           uint64
	}{
		{`{"optime":9007199254740993,"slots":{"n2":1},"retain_slots":["n3"]}`, "1", 9007199254740993},
		{`{"optime":"12"}`, "", 12},
		{`67108864`, "1", 67108864},
		{``, "67108864", 67108864},
		{`{"optime":`, "5", 5},
		{`{}`, "5", 0},
		{``, "", 0},
	} {
		values := map[string]string{"status": c.status, "optime/leader": c.legacy}
		if got := parse(t, path, values).Optime; got != c.want {
			t.Errorf("%v: %d, want %d", values, got, c.want)
		}
	}
}

func TestParseCluster(t *testing.T) {
	const citus = "/service/demo/0"
	c := parse(t, citus, map[string]string{
		"initialize": systemID, "leader": "n2", "members/n2": `{"role":"master","state":"running"}`, "members/n1": `{"role":"replica","state":"running"}`,
		"members/n1/deep": `{}`, "failsafe": `{}`, "something": "else",
	})
	if c.Path != citus || c.SystemID != systemID || c.Leader != "n2" || c.LeaderVersion != (dcs.Version{Created: 7, Modified: 9}) || !c.Known() || c.Age() < 0 {
		t.Errorf("%+v", c)
	}
	if !slices.Equal(c.Names(), []string{"n1", "n2"}) {
		t.Errorf("%v", c.Names())
	}
	if got, want := c.String(), "/service/demo/0: leader n2, n1 replica running, n2 primary running"; got != want {
		t.Errorf("%s", got)
	}
	// Another group, and another cluster whose name begins alike, are not part of it.
	c = parse(t, "/service/demo", map[string]string{"0/leader": "n2", "0/members/n2": `{}`})
	if c.Leader != "" || len(c.Members) != 0 {
		t.Errorf("%+v", c)
	}
	if got, want := c.String(), "/service/demo: leader nobody"; got != want {
		t.Errorf("%s", got)
	}
	if c, err := patroni.Parse("service/demo", dcs.Snapshot{}); !errors.Is(err, dcs.ErrInvalid) {
		t.Errorf("%+v, %v", c, err)
	}
	stale := dcs.Snapshot{Stale: errDown}
	if c, err := patroni.Parse(path, stale); err != nil || c.Known() || c.Age() != 0 || !errors.Is(c.Stale, errDown) {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestMember(t *testing.T) {
	m := patroni.Member{Name: "n1", Host: "10.0.0.1:5432", State: "running", ReplicationState: "streaming", Tags: map[string]any{"a": true, "b": "true"}}
	if a, err := m.Addr(); err != nil || a != n1 {
		t.Errorf("%v, %v", a, err)
	}
	if m.Route() != m.Host || !m.Running() || !m.Streaming() || !m.Tag("a") || m.Tag("b") || m.Tag("c") {
		t.Errorf("%+v", m)
	}
	m.Host, m.Proxy = "db1:5432", "10.0.0.1:6432"
	if _, err := m.Addr(); err == nil || m.Route() != m.Proxy {
		t.Errorf("%v, %v", err, m.Route())
	}
}

func TestWatchIsTheLastConfirmedContent(t *testing.T) {
	noGoroutines(t)
	store := memory.New()
	if _, err := store.Put(t.Context(), path+"/leader", []byte("n1"), dcs.Version{}); err != nil {
		t.Fatal(err)
	}
	step := 0
	for c, err := range patroni.Watch(t.Context(), store, path) {
		if err != nil {
			t.Fatal(err)
		}
		if step++; c.Leader != "n1" || step == 2 != errors.Is(c.Stale, errDown) {
			t.Errorf("step %d: %+v", step, c)
		}
		if step == 2 {
			break
		}
		store.SetDown(errDown)
	}
	if _, err := patroni.Get(t.Context(), store, path); !errors.Is(err, errDown) {
		t.Error(err)
	}
	store.SetDown(nil)
	if c, err := patroni.Get(t.Context(), store, path); err != nil || c.Leader != "n1" {
		t.Errorf("%+v, %v", c, err)
	}
	n := 0
	for _, err := range patroni.Watch(t.Context(), store, "no/path") {
		if n++; !errors.Is(err, dcs.ErrInvalid) || n > 1 {
			t.Error(err)
		}
	}
}

// FuzzParse: whatever the values are, nothing panics, and what was decoded keeps its own rules.
func FuzzParse(f *testing.F) {
	for _, v := range []string{
		`{"conn_url":"postgres://10.0.0.1:5432/postgres","api_url":"http://10.0.0.1:8008/patroni","role":"master","timeline":2,"xlog_location":1}`,
		`postgres://10.0.0.1:5432/postgres?application_name=http://10.0.0.1:8008/patroni`,
		`{"conn_kwargs":{"host":"::1","port":"5432"}}`,
		`{"ttl":30,"pause":"on","standby_cluster":{"host":"h"},"synchronous_mode":"quorum"}`,
		`{"leader":"n1","sync_standby":"n2,n3","quorum":1,"member":"n2","scheduled_at":"2026-07-24T12:00:00+00:00"}`,
		`[[1,67108864,"r","2026-07-24T12:00:00+00:00","n2"]]`, `n1:n2`, `12`, `{"optime":9}`, `null`, ``, `{`, "\xff",
	} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v string) {
		c := parse(t, path, map[string]string{
			"leader": v, "initialize": v, "config": v, "sync": v, "failover": v, "history": v, "status": v, "optime/leader": v, "members/n1": v,
		})
		m, ok := c.Member("n1")
		if !ok || c.Leader != v || c.SystemID != v {
			t.Fatalf("%+v", c)
		}
		if a, err := m.Addr(); err == nil && !a.IsValid() {
			t.Errorf("%q is an address, and is not: %v", m.Host, a)
		}
		if m.Role == "master" {
			t.Error("an old name")
		}
		if c.Config.TTL < 0 || c.Config.LoopWait < 0 || c.Config.RetryTimeout < 0 || c.Config.PrimaryStartTimeout < 0 || c.Sync.Quorum < 0 {
			t.Errorf("negative: %+v %+v", c.Config, c.Sync)
		}
		if len(c.Sync.Standbys) > 0 && c.Sync.Leader == "" || c.Sync.Has("") {
			t.Errorf("%+v", c.Sync)
		}
		for _, l := range c.History {
			if l.Timeline == 0 {
				t.Errorf("%+v", l)
			}
		}
		_ = c.String()
	})
}

package patroni

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// Parse decodes the snapshot of a cluster's directory. Unknown fields are ignored and a value that Patroni itself
// would not understand counts as absent, as Patroni does. The error is for a path that cannot be one.
func Parse(path string, s dcs.Snapshot) (Cluster, error) {
	if err := dcs.CheckKey("path", path); err != nil {
		return Cluster{}, err
	}
	c := Cluster{Path: path, At: s.At, Stale: s.Stale}
	value := func(key string) []byte {
		e, _ := s.Get(path + "/" + key)
		return e.Value
	}
	c.SystemID = string(value("initialize"))
	if e, ok := s.Get(path + "/leader"); ok {
		c.Leader, c.LeaderVersion = string(e.Value), e.Version
	}
	c.Config = parseConfig(value("config"))
	c.Sync = parseSync(value("sync"))
	c.Failover = parseFailover(value("failover"))
	c.History = parseHistory(value("history"))
	c.Optime = parseOptime(value("status"), value("optime/leader"))

	dir := path + "/members"
	for e := range s.All(dir) {
		name := e.Key[len(dir)+1:]
		if strings.Contains(name, "/") {
			continue // not a member by Patroni's own rule
		}
		if m, ok := parseMember(name, e.Value); ok {
			c.Members = append(c.Members, m)
		}
	}
	return c, nil
}

func parseMember(name string, value []byte) (Member, bool) {
	var v struct {
		ConnURL          string                     `json:"conn_url"`
		APIURL           string                     `json:"api_url"`
		ProxyURL         string                     `json:"proxy_url"`
		State            string                     `json:"state"`
		Role             Role                       `json:"role"`
		Version          string                     `json:"version"`
		Xlog             json.Number                `json:"xlog_location"`
		Timeline         json.Number                `json:"timeline"`
		ReplicationState string                     `json:"replication_state"`
		Tags             map[string]any             `json:"tags"`
		PendingRestart   bool                       `json:"pending_restart"`
		Pause            bool                       `json:"pause"`
		ConnKwargs       map[string]json.RawMessage `json:"conn_kwargs"`
	}
	if err := json.Unmarshal(value, &v); err != nil {
		// Before JSON the value was the connection URL with the REST address in a parameter.
		conn, api, _ := strings.Cut(string(value), "?application_name=")
		if hostOf(conn) == "" {
			return Member{}, false
		}
		return Member{Name: name, Host: hostOf(conn), API: apiOf(api)}, true
	}
	m := Member{
		Name: name, Host: hostOf(v.ConnURL), Proxy: hostOf(v.ProxyURL), API: apiOf(v.APIURL),
		State: v.State, Role: v.Role, Version: v.Version,
		Timeline: uint32(number(v.Timeline)), LSN: number(v.Xlog),
		ReplicationState: v.ReplicationState, Tags: v.Tags, PendingRestart: v.PendingRestart, Paused: v.Pause,
	}
	if m.Role == "master" {
		m.Role = RolePrimary
	}
	if m.Host == "" && v.ConnKwargs != nil {
		host, port := unquote(v.ConnKwargs["host"]), unquote(v.ConnKwargs["port"])
		if host != "" {
			m.Host = hostOf("postgres://" + host + ":" + port)
		}
	}
	return m, true
}

func unquote(raw json.RawMessage) string { return strings.Trim(string(raw), `"`) }

func number(n json.Number) uint64 {
	u, err := strconv.ParseUint(n.String(), 10, 64)
	if err != nil {
		return 0
	}
	return u
}

func parseConfig(value []byte) Config {
	c := Config{TTL: 30 * time.Second, LoopWait: 10 * time.Second, RetryTimeout: 10 * time.Second, MaximumLag: 1 << 20, PrimaryStartTimeout: 300 * time.Second}
	var v map[string]json.RawMessage
	if json.Unmarshal(value, &v) != nil {
		return c
	}
	c.Raw = slices.Clone(value)
	seconds := func(to *time.Duration, names ...string) {
		for _, n := range names {
			var s float64
			if raw, ok := v[n]; ok && json.Unmarshal(raw, &s) == nil {
				*to = time.Duration(s * float64(time.Second))
				return
			}
		}
	}
	seconds(&c.TTL, "ttl")
	seconds(&c.LoopWait, "loop_wait")
	seconds(&c.RetryTimeout, "retry_timeout")
	seconds(&c.PrimaryStartTimeout, "primary_start_timeout", "master_start_timeout")
	c.Paused = truth(v["pause"])
	c.Failsafe = truth(v["failsafe_mode"])
	c.SynchronousStrict = truth(v["synchronous_mode_strict"])
	if raw := string(v["standby_cluster"]); raw != "" && raw != "null" && raw != "{}" {
		c.StandbyCluster = true
	}
	switch mode := unquote(v["synchronous_mode"]); {
	case mode == "quorum":
		c.Synchronous = "quorum"
	case truth(v["synchronous_mode"]):
		c.Synchronous = "on"
	}
	if raw, ok := v["maximum_lag_on_failover"]; ok {
		var n int64
		if json.Unmarshal(raw, &n) == nil {
			c.MaximumLag = n
		}
	}
	return c
}

// truth reads a boolean as Patroni does: also from the words that YAML knows.
func truth(raw json.RawMessage) bool {
	switch strings.ToLower(unquote(raw)) {
	case "true", "on", "yes", "1":
		return true
	}
	return false
}

func parseSync(value []byte) Sync {
	var v struct {
		Leader  string `json:"leader"`
		Standby string `json:"sync_standby"`
		Quorum  int    `json:"quorum"`
	}
	if json.Unmarshal(value, &v) != nil {
		return Sync{}
	}
	s := Sync{Leader: v.Leader, Quorum: v.Quorum}
	if v.Standby != "" {
		s.Standbys = strings.Split(v.Standby, ",")
	}
	return s
}

func parseFailover(value []byte) Failover {
	var v struct{ Leader, Member, Scheduled_at string } //nolint:revive // Patroni's own field name
	if json.Unmarshal(value, &v) != nil {
		leader, candidate, ok := strings.Cut(string(value), ":") // the form before JSON
		if !ok {
			return Failover{}
		}
		return Failover{Leader: leader, Candidate: candidate}
	}
	return Failover{Leader: v.Leader, Candidate: v.Member, ScheduledAt: parseTime(v.Scheduled_at)}
}

func parseHistory(value []byte) []HistoryLine {
	var rows [][]json.RawMessage
	if json.Unmarshal(value, &rows) != nil {
		return nil
	}
	var lines []HistoryLine
	for _, row := range rows {
		if len(row) < 2 {
			continue
		}
		l := HistoryLine{Timeline: uint32(number(json.Number(row[0]))), LSN: number(json.Number(row[1]))}
		text := func(i int) (s string) {
			if i < len(row) {
				_ = json.Unmarshal(row[i], &s) // a wrong type counts as absent
			}
			return s
		}
		l.Reason, l.At, l.Leader = text(2), parseTime(text(3)), text(4)
		lines = append(lines, l)
	}
	return lines
}

func parseOptime(status, legacy []byte) uint64 {
	var v struct {
		Optime json.Number `json:"optime"`
	}
	if json.Unmarshal(status, &v) == nil && v.Optime != "" {
		return number(v.Optime)
	}
	if n := number(json.Number(status)); n > 0 {
		return n
	}
	return number(json.Number(legacy))
}

func parseTime(s string) time.Time {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999-07:00", "2006-01-02T15:04:05.999999"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t
		}
	}
	return time.Time{}
}

// String is one line: who leads, and the members with state and role.
func (c Cluster) String() string {
	var b strings.Builder
	leader := c.Leader
	if leader == "" {
		leader = "nobody"
	}
	fmt.Fprintf(&b, "%s: leader %s", c.Path, leader)
	for _, m := range c.Members {
		fmt.Fprintf(&b, ", %s %s %s", m.Name, m.Role, m.State)
	}
	return b.String()
}

// Names returns the members' names, sorted.
func (c Cluster) Names() []string {
	names := map[string]bool{}
	for _, m := range c.Members {
		names[m.Name] = true
	}
	return slices.Sorted(maps.Keys(names))
}

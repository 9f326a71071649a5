package patroni

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

func parseMember(name string, value []byte) Member {
	if strings.HasPrefix(string(value), "postgres") {
		// Before JSON the value was the connection URL with the REST address in a parameter.
		m := Member{Name: name, Host: hostOf(string(value))}
		if u, err := url.Parse(string(value)); err == nil {
			m.API = apiOf(u.Query().Get("application_name"))
		}
		return m
	}
	var v struct {
		ConnURL          string                     `json:"conn_url"`
		APIURL           string                     `json:"api_url"`
		ProxyURL         string                     `json:"proxy_url"`
		State            string                     `json:"state"`
		Role             Role                       `json:"role"`
		Version          string                     `json:"version"`
		Xlog             json.RawMessage            `json:"xlog_location"`
		Timeline         json.RawMessage            `json:"timeline"`
		ReplicationState string                     `json:"replication_state"`
		Tags             map[string]any             `json:"tags"`
		PendingRestart   bool                       `json:"pending_restart"`
		Pause            bool                       `json:"pause"`
		ConnKwargs       map[string]json.RawMessage `json:"conn_kwargs"`
	}
	if !object(value, &v) {
		return Member{Name: name}
	}
	m := Member{
		Name: name, Host: hostOf(v.ConnURL), Proxy: hostOf(v.ProxyURL), API: apiOf(v.APIURL),
		State: v.State, Role: v.Role.folded(), Version: v.Version,
		Timeline: timeline(v.Timeline), LSN: number(v.Xlog),
		ReplicationState: v.ReplicationState, Tags: v.Tags, PendingRestart: v.PendingRestart, Paused: v.Pause,
	}
	if host := unquote(v.ConnKwargs["host"]); v.ConnURL == "" && host != "" {
		port := "5432"
		if p := number(v.ConnKwargs["port"]); p != 0 {
			port = strconv.FormatUint(p, 10)
		}
		m.Host = net.JoinHostPort(host, port)
	}
	return m
}

func parseConfig(value []byte) Config {
	c := Config{
		TTL: 30 * time.Second, LoopWait: 10 * time.Second, RetryTimeout: 10 * time.Second,
		MaximumLag: 1 << 20, PrimaryStartTimeout: 300 * time.Second,
	}
	var v map[string]json.RawMessage
	if !object(value, &v) {
		return c
	}
	c.Raw = slices.Clone(value)
	seconds := func(to *time.Duration, name string) {
		s, err := strconv.ParseFloat(unquote(v[name]), 64)
		if err == nil && s >= 0 && s <= math.MaxInt32 {
			*to = time.Duration(s * float64(time.Second))
		}
	}
	seconds(&c.TTL, "ttl")
	seconds(&c.LoopWait, "loop_wait")
	seconds(&c.RetryTimeout, "retry_timeout")
	seconds(&c.PrimaryStartTimeout, "master_start_timeout") // the name before Patroni 3; the new one wins
	seconds(&c.PrimaryStartTimeout, "primary_start_timeout")
	if n, err := strconv.ParseInt(unquote(v["maximum_lag_on_failover"]), 10, 64); err == nil {
		c.MaximumLag = n
	}
	c.Paused = truth(v["pause"])
	c.Failsafe = truth(v["failsafe_mode"])
	c.SynchronousStrict = truth(v["synchronous_mode_strict"])
	c.StandbyCluster = standbyCluster(v["standby_cluster"])
	switch {
	case c.StandbyCluster: // Patroni replicates synchronously on a primary only
	case strings.EqualFold(unquote(v["synchronous_mode"]), "quorum"):
		c.Synchronous = "quorum"
	case truth(v["synchronous_mode"]):
		c.Synchronous = "on"
	}
	return c
}

// standbyCluster follows Patroni's rule: the section counts when it says where from.
func standbyCluster(raw json.RawMessage) bool {
	var v map[string]json.RawMessage
	if !object(raw, &v) {
		return false
	}
	return slices.ContainsFunc([]string{"host", "port", "restore_command"}, func(key string) bool {
		switch string(v[key]) {
		case "", "null", `""`, "0", "false":
			return false
		}
		return true
	})
}

func parseSync(value []byte) Sync {
	var v struct {
		Leader  string          `json:"leader"`
		Standby string          `json:"sync_standby"`
		Quorum  json.RawMessage `json:"quorum"`
	}
	if !object(value, &v) || v.Leader == "" {
		return Sync{} // not in use
	}
	s := Sync{Leader: v.Leader, Quorum: int(min(number(v.Quorum), math.MaxInt32))}
	for name := range strings.SplitSeq(v.Standby, ",") {
		if name = strings.TrimSpace(name); name != "" {
			s.Standbys = append(s.Standbys, name)
		}
	}
	return s
}

func parseFailover(value []byte) Failover {
	text := strings.TrimSpace(string(value))
	if text != "" && !json.Valid(value) && text[0] != '{' && text[0] != '[' {
		// Before JSON it was leader:candidate.
		parts := append(strings.Split(text, ":"), "")
		return Failover{Leader: strings.TrimSpace(parts[0]), Candidate: strings.TrimSpace(parts[1])}
	}
	var v struct {
		Leader string `json:"leader"`
		Member string `json:"member"`
		At     string `json:"scheduled_at"`
	}
	if !object(value, &v) {
		return Failover{}
	}
	f := Failover{Leader: v.Leader, Candidate: v.Member, ScheduledAt: parseTime(v.At)}
	if v.At != "" && f.ScheduledAt.IsZero() {
		return Failover{} // Patroni cannot read it either, and "now" is what it does not mean
	}
	return f
}

func parseHistory(value []byte) []HistoryLine {
	var rows []json.RawMessage
	if json.Unmarshal(value, &rows) != nil {
		return nil
	}
	var lines []HistoryLine
	for _, raw := range rows {
		var row []json.RawMessage
		if json.Unmarshal(raw, &row) != nil || len(row) < 2 || timeline(row[0]) == 0 {
			continue
		}
		text := func(i int) (s string) {
			if i < len(row) {
				_ = json.Unmarshal(row[i], &s) // a wrong type counts as absent
			}
			return s
		}
		lines = append(lines, HistoryLine{
			Timeline: timeline(row[0]), LSN: number(row[1]), Reason: text(2), At: parseTime(text(3)), Leader: text(4),
		})
	}
	return lines
}

func parseOptime(status, legacy []byte) uint64 {
	var v struct {
		Optime json.RawMessage `json:"optime"`
	}
	switch {
	case object(status, &v):
		return number(v.Optime)
	case number(status) > 0: // the form before slots
		return number(status)
	}
	return number(legacy)
}

func parseTime(s string) time.Time {
	for _, layout := range []string{
		time.RFC3339Nano, "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02T15:04:05.999999999Z0700",
		"2006-01-02T15:04Z07:00", "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999",
	} {
		if t, err := time.Parse(layout, s); err == nil {
			return t
		}
	}
	return time.Time{}
}

// object decodes a JSON object as far as it can be: a field of a wrong type counts as absent, and takes no other
// field with it. It reports whether value is an object at all.
func object(value []byte, v any) bool {
	value = bytes.TrimSpace(value)
	if len(value) == 0 || value[0] != '{' {
		return false
	}
	_, broken := errors.AsType[*json.SyntaxError](json.Unmarshal(value, v))
	return !broken
}

// unquote returns the text of a JSON scalar, with or without quotes; null is empty.
func unquote(raw json.RawMessage) string {
	s := strings.TrimSpace(strings.Trim(strings.TrimSpace(string(raw)), `"`))
	if s == "null" {
		return ""
	}
	return s
}

// number reads a whole number of any size, with or without quotes; anything else is zero.
func number(raw []byte) uint64 {
	n, err := strconv.ParseUint(unquote(raw), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// timeline reads a timeline; what cannot be one is zero, unknown.
func timeline(raw []byte) uint32 {
	n := number(raw)
	if n > math.MaxUint32 {
		return 0
	}
	return uint32(n)
}

// truth reads a boolean as Patroni does: also from the words that YAML knows.
func truth(raw json.RawMessage) bool {
	switch strings.ToLower(unquote(raw)) {
	case "true", "on", "yes", "1":
		return true
	}
	return false
}

// hostOf returns host:port of a postgres:// URL; the port defaults to PostgreSQL's.
func hostOf(conn string) string {
	u, err := url.Parse(conn)
	if err != nil || u.Hostname() == "" {
		return ""
	}
	if _, err := netip.ParseAddr(u.Hostname()); err != nil && strings.ContainsAny(u.Hostname(), ":[]") {
		return "" // a URL may have it; no host name does
	}
	port := u.Port()
	if port == "" {
		port = "5432"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// apiOf cuts an api_url to scheme and host.
func apiOf(api string) string {
	u, err := url.Parse(api)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

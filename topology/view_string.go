package topology

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// String is the view for people.
func (v View) String() string {
	var b strings.Builder
	l := v.Leadership
	fmt.Fprintf(&b, "%s  leader %s %s, epoch %s", v.Path, orDash(l.Member), l.Phase, orDash(l.Epoch.String()))
	if v.Paused {
		b.WriteString(", maintenance mode")
	}
	if f := l.Failover; f != nil {
		fmt.Fprintf(&b, ", a change from %s to %s is asked for", orDash(f.From), orDash(f.To))
	}
	switch {
	case v.Stale != "" && v.Confirmed.IsZero():
		fmt.Fprintf(&b, ", NEVER CONFIRMED: %s", v.Stale)
	case v.Stale != "":
		fmt.Fprintf(&b, ", STALE for %s: %s", rounded(v.Age()), v.Stale)
	}
	if o := l.Outage; o != nil {
		fmt.Fprintf(&b, "; the members say: %s", o.Reason)
	}
	b.WriteByte('\n')
	line := func(format string, args ...any) {
		b.WriteString(strings.TrimRight(fmt.Sprintf(format, args...), " ") + "\n")
	}
	for _, m := range v.Members {
		line("  %-8s %-21s %-8s %-10s %-10s timeline %d  %s", m.Name, m.Host, m.Role, m.State, m.Replication, m.Timeline, v.remarks(
			m.Seen, word(m.Sync, "sync"), word(m.Fresh, "fresh"), word(m.Lag > 0, rounded(m.Lag)+" behind"), m.Error))
	}
	for _, p := range v.Poolers {
		state := string(p.State)
		if !p.Live {
			state = "no agent"
		}
		line("  %-8s %-21s %-8s %-10s to %s  %s", p.Name, p.Addr, p.Service, state, addrs(p.Target), v.remarks(
			p.Seen, word(p.Draining && !p.Empty, "draining"), word(p.Draining && p.Empty, "drained"), p.Pool.remark(v.At), p.Error))
	}
	for _, c := range v.ControlPlanes {
		for _, name := range slices.Sorted(maps.Keys(c.Services)) {
			s := c.Services[name]
			line("  %-8s %-8s version %s applied by %d of %d Envoys  %s", c.Name, name, s.Version, len(s.Applied), len(s.Envoys), v.remarks(
				c.Seen, word(len(s.Draining) > 0, strings.Join(s.Draining, ",")+" drained"), word(s.Kept != "", "KEPT: "+s.Kept)))
		}
	}
	if o := v.Operation; o != nil {
		line("  operation %s: %s from %s to %s, phase %s, by %s  %s", o.ID, o.Kind, o.From, orDash(o.To), o.Phase, o.Owner, v.remarks(o.Seen))
	}
	return b.String()
}

// remarks joins what there is to say of a line; the age of what it shows is said when the view is stale.
func (v View) remarks(seen Seen, remarks ...string) string {
	if v.Stale != "" && !seen.At.IsZero() {
		remarks = append(remarks, rounded(seen.Age(v.At))+" old")
	}
	return strings.Join(slices.DeleteFunc(remarks, func(s string) bool { return s == "" }), ", ")
}

// remark is what a pooler's line says of its console.
func (p *PoolView) remark(now time.Time) string {
	switch {
	case p == nil:
		return ""
	case p.Seen.At.IsZero():
		return "console: " + p.Error
	}
	s := fmt.Sprintf("%d clients, %d waiting", p.Clients, p.Waiting)
	if p.Error != "" {
		s += fmt.Sprintf(" %s ago, console: %s", rounded(p.Seen.Age(now)), p.Error)
	}
	return s
}

func word(is bool, s string) string {
	if is {
		return s
	}
	return ""
}

func rounded(d time.Duration) string { return d.Round(time.Millisecond).String() }

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func addrs(a []netip.AddrPort) string {
	if len(a) == 0 {
		return "nothing"
	}
	var s []string
	for _, x := range a {
		s = append(s, x.String())
	}
	return strings.Join(s, ",")
}

package ledger

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"
)

const ms = time.Millisecond

func TestPercentile(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(100-i) * ms
	}
	for _, c := range []struct {
		of   []time.Duration
		p    int
		want time.Duration
	}{
		{nil, 50, 0},
		{[]time.Duration{7 * ms}, 50, 7 * ms},
		{[]time.Duration{7 * ms}, 99, 7 * ms},
		{[]time.Duration{2 * ms, 1 * ms}, 50, 1 * ms},
		{[]time.Duration{3 * ms, 1 * ms, 2 * ms}, 50, 2 * ms},
		{hundred, 50, 50 * ms},
		{hundred, 99, 99 * ms},
		{hundred, 100, 100 * ms},
	} {
		if got := percentile(slices.Clone(c.of), c.p); got != c.want {
			t.Errorf("percentile(%v, %d) = %v, want %v", c.of, c.p, got, c.want)
		}
	}
}

func TestGaps(t *testing.T) {
	for _, c := range []struct {
		name     string
		from, to time.Duration
		prev     time.Duration
		at       []time.Duration
		want     time.Duration
	}{
		{"nothing at all counts from the origin", 0, 90 * ms, -1, nil, 90 * ms},
		{"the first from the origin", 0, 90 * ms, -1, []time.Duration{60 * ms, 80 * ms}, 60 * ms},
		{"between two, in any order", 0, 90 * ms, -1, []time.Duration{85 * ms, 10 * ms, 50 * ms}, 40 * ms},
		{"still open at the end", 0, 90 * ms, -1, []time.Duration{10 * ms, 30 * ms}, 60 * ms},
		{"begun before the part, whole", 50 * ms, 90 * ms, 5 * ms, []time.Duration{60 * ms, 80 * ms}, 55 * ms},
		{"begun before the part and open", 50 * ms, 90 * ms, 5 * ms, nil, 85 * ms},
		{"after the end is left out", 0, 90 * ms, -1, []time.Duration{45 * ms, 200 * ms}, 45 * ms},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGaps(c.from, c.to)
			if c.prev >= 0 {
				g.before(c.prev)
			}
			for _, at := range c.at {
				g.add(at)
			}
			if got := g.longest(0); got != c.want {
				t.Errorf("longest = %v, want %v", got, c.want)
			}
		})
	}
}

// scripted is a run of two writers, one transaction per 10 ms each, 5 ms
// apart. A break at 100 ms takes one transaction of each with it; the server
// is back at 400 ms and both catch up.
func scripted() *history {
	h := &history{base: time.Now(), stopped: 600 * ms, measured: true, checked: true}
	for w := range 2 {
		t := track{offset: time.Duration(w) * 5 * ms, every: 10 * ms, failures: []failure{{"57P01", "terminated"}, {CannotConnect, fmt.Sprintf("refused %d", w)}}}
		for seq := range 60 {
			due := t.offset + time.Duration(seq)*10*ms
			a := attempt{start: due, end: due + ms, present: true}
			switch {
			case seq == 10:
				a.outcome, a.present = unknown, w == 0
				a.end = due + 2*ms
			case seq == 11:
				a.outcome, a.present, a.kind = failed, false, 1
				a.end = due + 300*ms - t.offset // 410 ms
			case seq > 11 && due < 410*ms:
				a.start = 410*ms + time.Duration(seq)*ms/10
				a.end = a.start + ms/10
			}
			t.attempts = append(t.attempts, a)
		}
		h.writers = append(h.writers, t)
	}
	for at := 5 * ms; at < 600*ms; at += 5 * ms {
		if at <= 95*ms || at >= 350*ms {
			h.direct = append(h.direct, at)
		}
	}
	return h
}

func TestReport(t *testing.T) {
	h := scripted()
	r := newReport(h, "t", 1, []mark{{at: h.base.Add(500 * ms), name: "later"}, {at: h.base.Add(98 * ms), name: "break"}})
	want := Report{
		Writers: 2, Sent: 120, Acknowledged: 116, Failed: 4, Unknown: 2, Committed: 1, InFlight: 2,
		Stall: 300 * ms, P50: ms, ServerGap: 255 * ms,
		Silence: 411*ms - 96*ms, // the last one before the break is of writer 1, the first after it of writer 0
	}
	check := func(name string, got, want any) {
		t.Helper()
		if got != want {
			t.Errorf("%s = %v, want %v", name, got, want)
		}
	}
	check("Sent", r.Sent, want.Sent)
	check("Acknowledged", r.Acknowledged, want.Acknowledged)
	check("Failed", r.Failed, want.Failed)
	check("Unknown", r.Unknown, want.Unknown)
	check("Committed", r.Committed, want.Committed)
	check("Lost", r.Lost, 0)
	check("Surplus", r.Surplus, 0)
	check("InFlight", r.InFlight, want.InFlight)
	check("Stall", r.Stall, want.Stall)
	check("P50", r.P50, want.P50)
	check("Silence", r.Silence, want.Silence)
	check("ServerGap", r.ServerGap, want.ServerGap)
	check("FirstError", r.FirstError, "terminated")
	if !maps.Equal(r.BySQLState, map[string]int{"57P01": 2, CannotConnect: 2}) {
		t.Errorf("BySQLState = %v", r.BySQLState)
	}

	if len(r.Events) != 2 {
		t.Fatalf("%d events, want 2", len(r.Events))
	}
	b, l := r.Events[0], r.Events[1]
	check("name", b.Name, "break")
	check("break: Failed", b.Failed, 4)
	check("break: Silence", b.Silence, want.Silence)
	check("break: ServerGap", b.ServerGap, want.ServerGap)
	check("later: Failed", l.Failed, 0)
	check("later: InFlight", l.InFlight, 0)
	check("later: Stall", l.Stall, ms)
	check("later: ServerGap", l.ServerGap, 5*ms)

	// A part and the rest are the whole.
	before := r.Window(h.base, h.base.Add(98*ms))
	check("parts: Sent", before.Sent+b.Sent+l.Sent, r.Sent)
	check("before: Failed", before.Failed, 0)
	// In the middle of the break nothing ends, and the silence is still open.
	open := r.Window(h.base.Add(150*ms), h.base.Add(300*ms))
	check("open: Sent", open.Sent, 0)
	check("open: Silence", open.Silence, 204*ms)
	check("open: P99", open.P99, time.Duration(0))
	// Outside of the run there is nothing.
	check("after: Sent", r.Window(h.base.Add(time.Hour), h.base.Add(2*time.Hour)).Sent, 0)
	check("earlier: Sent", r.Window(h.base.Add(-2*time.Hour), h.base.Add(-time.Hour)).Sent, 0)
	check("backwards: Sent", r.Window(h.base.Add(500*ms), h.base.Add(100*ms)).Sent, 0)
	// And a report without a run has no parts.
	check("no run: Sent", Report{Sent: 3}.Window(h.base, h.base.Add(time.Second)).Sent, 0)
}

func TestLostAndSurplus(t *testing.T) {
	h := scripted()
	h.writers[0].attempts[3].present = false // acknowledged
	h.writers[1].attempts[11].present = true // surely failed
	h.found(0, 5, 0)                         // a second row of one
	h.found(0, 60, 0)                        // never sent
	h.found(7, 0, 0)                         // no such writer
	h.found(-1, -1, 0)
	r := newReport(h, "t", 1, nil)
	if r.Lost != 1 || r.Surplus != 5 {
		t.Errorf("Lost %d Surplus %d, want 1 and 5", r.Lost, r.Surplus)
	}
	if w := r.Window(h.base, h.base.Add(50*ms)); w.Lost != 1 || w.Surplus != 0 {
		t.Errorf("first part: Lost %d Surplus %d, want 1 and 0", w.Lost, w.Surplus)
	}
	h.checked = false
	if r := newReport(h, "t", 1, nil); r.Lost != 0 || r.Checked {
		t.Errorf("unchecked: Lost %d, Checked %t", r.Lost, r.Checked)
	}
}

// Each break may take what was under way with it, but a service that goes on
// failing is not excused by it.
func TestInFlight(t *testing.T) {
	h := scripted()
	for _, c := range []struct {
		name   string
		breaks []time.Duration
		want   int
	}{
		{"none", nil, 0},
		{"both under way", []time.Duration{102 * ms}, 2},
		{"one burst", []time.Duration{107 * ms, 102 * ms, 410 * ms}, 2},
		{"at the end only one is left", []time.Duration{596 * ms}, 1},
	} {
		if got := h.inFlight(c.breaks); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestBackoff(t *testing.T) {
	w := &client{}
	var got []time.Duration
	for w.losses = range 9 {
		got = append(got, w.backoff())
	}
	want := []time.Duration{0, 0, 5 * ms, 10 * ms, 20 * ms, 40 * ms, 80 * ms, 100 * ms, 100 * ms}
	if !slices.Equal(got, want) {
		t.Errorf("backoff = %v, want %v", got, want)
	}
	w.losses = 1 << 30
	if w.backoff() != maxBackoff {
		t.Errorf("after very many losses: %v", w.backoff())
	}
	w.session = &session{}
	if w.backoff() != 0 {
		t.Errorf("with a connection: %v", w.backoff())
	}
}

package ledger

import (
	"slices"
	"time"
)

// Report is what became of the transactions of a run, or of a part of it. A
// transaction belongs to the part in which it ended.
type Report struct {
	// Name is that of the mark that the part begins with, empty for the whole run.
	Name string    `json:"name,omitempty"`
	From time.Time `json:"from"`
	To   time.Time `json:"to"`

	Writers int `json:"writers"`

	// Sent counts the transactions that were started. Each is attempted once.
	Sent int `json:"sent"`
	// Acknowledged counts those that the server said had committed.
	Acknowledged int `json:"acknowledged"`
	// Failed counts all others: the surely failed and the unknown ones.
	Failed int `json:"failed"`
	// Unknown counts the failed ones that had been sent and got no answer that
	// settles whether they committed.
	Unknown int `json:"unknown"`

	// Checked tells that the rows were read back; without it Committed, Lost
	// and Surplus are 0 and mean nothing.
	Checked bool `json:"checked"`
	// Committed counts the unknown ones whose row is there.
	Committed int `json:"committed"`
	// Lost counts the acknowledged ones whose row is not there.
	Lost int `json:"lost"`
	// Surplus counts rows that should not be there: of a transaction that
	// surely failed, or, in the whole run only, of none that was ever sent, or
	// the second row of one.
	Surplus int `json:"surplus"`

	// Stall is the longest time that a client waited: from the moment when a
	// transaction was due until it was acknowledged or failed.
	Stall time.Duration `json:"stall"`
	// Silence is the longest time without an acknowledgement to any writer. A
	// silence counts whole, in the part in which it ends; one that goes on at
	// the end of the part counts up to there.
	Silence time.Duration `json:"silence"`
	// P50 and P99 are percentiles of the time from due to acknowledged.
	P50 time.Duration `json:"p50"`
	P99 time.Duration `json:"p99"`

	// ServerGap is the longest time in which no node of Load.Direct accepted a
	// write, counted as Silence is, with a resolution of about 5 ms. Zero
	// without Load.Direct.
	ServerGap time.Duration `json:"server_gap"`

	// InFlight is how many transactions a single break could take with it.
	// Failures less than a second apart are one burst; for each burst it is the
	// number of writers that had a transaction under way within 50 ms of its
	// first failure (the time that a break takes to reach everybody), and the
	// largest of these is reported. A writer has one under way at most, so it
	// never exceeds Writers. Failed <= InFlight says that a break cost no more
	// than what was already sent. Zero without failures.
	InFlight int `json:"in_flight"`

	// BySQLState counts the failed ones by SQLSTATE, or by one of the words
	// that this package has for those without (LoginFailing and so on).
	BySQLState map[string]int `json:"by_sqlstate,omitempty"`
	// FirstError is the text of the first failure, for a person to read.
	FirstError string `json:"first_error,omitempty"`

	// Events are the parts from each mark to the next, in the report of a whole
	// run only.
	Events []Report `json:"events,omitempty"`

	// Table and Run say where the rows are.
	Table string `json:"table"`
	Run   int64  `json:"run"`

	history *history
}

// mark is a named moment.
type mark struct {
	name string
	at   time.Time
}

// newReport makes the report of a whole run.
func newReport(h *history, table string, run int64, marks []mark) Report {
	r := Report{Writers: len(h.tracks), Table: table, Run: run, history: h}
	whole := r.part(h.began, h.last())
	whole.Surplus += h.strays
	for i, m := range marks {
		to := whole.To
		if i+1 < len(marks) {
			to = marks[i+1].at
		}
		e := r.Window(m.at, to)
		e.Name = m.name
		whole.Events = append(whole.Events, e)
	}
	return whole
}

// Window returns the same figures for the part of the run from (inclusive) to
// (exclusive). It knows no more than the run: a report that was not made by
// Stop, one read from JSON for instance, has no parts and returns zeroes.
func (r Report) Window(from, to time.Time) Report {
	if r.history == nil {
		return Report{From: from, To: to}
	}
	h := r.history
	return r.part(max(from.Sub(h.base), h.began), min(to.Sub(h.base), h.last()))
}

// part fills in the figures of the part [from, to) of the history.
func (r Report) part(from, to time.Duration) Report {
	h := r.history
	p := Report{
		From: h.base.Add(from), To: h.base.Add(to),
		Writers: r.Writers, Table: r.Table, Run: r.Run,
		Checked: h.checked, history: h,
	}
	var latencies, breaks []time.Duration
	acks := newGaps(from, min(to, h.stopped))
	first := to
	for i := range h.tracks {
		t := &h.tracks[i]
		begin, end := t.from(from), t.from(to)
		if before := lastAcknowledged(t.attempts[:begin]); before >= 0 {
			acks.before(before)
		}
		for seq := begin; seq < end; seq++ {
			a := t.attempts[seq]
			p.count(a)
			latency := a.end - h.due(t, seq)
			p.Stall = max(p.Stall, latency)
			if a.outcome == acknowledged {
				latencies = append(latencies, latency)
				acks.add(a.end)
				continue
			}
			breaks = append(breaks, a.end)
			f := t.failures[a.kind]
			if p.BySQLState == nil {
				p.BySQLState = map[string]int{}
			}
			p.BySQLState[f.kind]++
			if a.end < first {
				first, p.FirstError = a.end, f.text
			}
		}
	}
	p.Silence = acks.longest(h.began)
	p.P50, p.P99 = percentile(latencies, 50), percentile(latencies, 99)
	p.InFlight = h.inFlight(breaks)
	if h.measured {
		p.ServerGap = h.serverGap(from, min(to, h.stopped))
	}
	return p
}

// count enters one transaction of the part.
func (p *Report) count(a attempt) {
	p.Sent++
	switch a.outcome {
	case acknowledged:
		p.Acknowledged++
		if p.Checked && !a.present {
			p.Lost++
		}
	case failed:
		p.Failed++
		if a.present {
			p.Surplus++
		}
	case unknown:
		p.Failed++
		p.Unknown++
		if a.present {
			p.Committed++
		}
	}
}

func lastAcknowledged(attempts []attempt) time.Duration {
	for _, a := range slices.Backward(attempts) {
		if a.outcome == acknowledged {
			return a.end
		}
	}
	return -1
}

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

	// Checked tells that the rows were read back. Without it Committed, Lost
	// and Surplus are 0 and mean nothing, and Stale does not know of the
	// unknown ones that had committed.
	Checked bool `json:"checked"`
	// Committed counts the unknown ones whose row is there.
	Committed int `json:"committed"`
	// Lost counts the acknowledged ones whose row is not there.
	Lost int `json:"lost"`
	// Surplus counts rows that should not be there: of a transaction that
	// surely failed, or, in the whole run only, of none that was ever sent, the
	// second row of one, or one on another timeline than was acknowledged.
	Surplus int `json:"surplus"`

	// Timelines are those on which writes were accepted, in order.
	Timelines []uint32 `json:"timelines,omitempty"`
	// Back counts the acknowledged ones on an older timeline than the same
	// writer had been acknowledged on before.
	Back int `json:"back"`
	// Stale counts the writes that a server of an older timeline accepted
	// (acknowledged, or the row is there), though they were started after some
	// client had been answered by the primary of a newer one.
	Stale int `json:"stale"`

	// Stall is the longest time that a writer waited: from the moment when a
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

	// Reads is what the readers saw; zero without readers.
	Reads Reads `json:"reads,omitzero"`

	// Events are the parts from each mark to the next, in the report of a whole
	// run only.
	Events []Report `json:"events,omitempty"`
	// Notes are the notes of this part, in order.
	Notes []Note `json:"notes,omitempty"`

	// Table and Run say where the rows are.
	Table string `json:"table"`
	Run   int64  `json:"run"`

	history *history
	marks   []mark // of the whole run, in order
}

// newReport makes the report of a whole run.
func newReport(h *history, table string, run int64, marks []mark) Report {
	from, to := h.base.Add(h.began), h.base.Add(h.last())
	r := Report{Writers: len(h.writers), Table: table, Run: run, history: h, marks: inOrder(marks, from, to.Add(-1))}
	whole := r.part(h.began, h.last())
	whole.Surplus += h.strays
	for _, m := range r.marks {
		if m.note {
			continue
		}
		if n := len(whole.Events); n > 0 {
			whole.Events[n-1].To = m.at
		}
		whole.Events = append(whole.Events, Report{Name: m.name, From: m.at, To: to})
	}
	for i, e := range whole.Events {
		whole.Events[i] = r.Window(e.From, e.To)
		whole.Events[i].Name = e.Name
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
		Checked: h.checked, history: h, marks: r.marks,
	}
	p.Notes = notes(p.marks, p.From, p.To)
	t := h.tally(h.writers, from, to)
	p.Sent, p.Acknowledged, p.Failed = t.sent, t.answered, t.sent-t.answered
	p.Stall, p.Silence, p.P50, p.P99 = t.stall, t.silence, t.p50, t.p99
	p.BySQLState, p.FirstError = t.kinds, t.firstError
	p.InFlight = h.inFlight(t.breaks)
	p.prove(from, to)
	if h.measured {
		p.ServerGap = h.serverGap(from, min(to, h.stopped))
	}
	if len(h.readers) > 0 {
		p.Reads = h.reads(from, to)
	}
	return p
}

// prove counts what the rows and their timelines tell.
func (r *Report) prove(from, to time.Duration) {
	h := r.history
	for i := range h.writers {
		t := &h.writers[i]
		begin, end := t.part(from, to)
		newest := newestTimeline(t.attempts[:begin])
		for _, a := range t.attempts[begin:end] {
			switch a.outcome {
			case acknowledged:
				if h.checked && !a.present {
					r.Lost++
				}
				if a.timeline < newest {
					r.Back++
				}
				newest = max(newest, a.timeline)
			case failed:
				if a.present {
					r.Surplus++
				}
			case unknown:
				r.Unknown++
				if a.present {
					r.Committed++
				}
			}
			if at, known := slices.BinarySearch(r.Timelines, a.timeline); !known && a.accepted() {
				r.Timelines = slices.Insert(r.Timelines, at, a.timeline)
			}
			if h.staleWrite(a) {
				r.Stale++
			}
		}
	}
}

// newestTimeline is the newest one on which one of these was acknowledged.
func newestTimeline(attempts []attempt) uint32 {
	var newest uint32
	for _, a := range attempts {
		if a.outcome == acknowledged {
			newest = max(newest, a.timeline)
		}
	}
	return newest
}

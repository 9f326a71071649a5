package ledger

import (
	"slices"
	"testing"
	"time"
)

// done is an attempt that was acknowledged, or answered, on a timeline.
func done(start, end time.Duration, timeline uint32) attempt {
	return attempt{start: start, end: end, timeline: timeline}
}

// moved is a run of two writers and two readers in which timeline 2 answers
// from 100 ms on.
func moved() *history {
	h := &history{base: time.Now(), stopped: 400 * ms, checked: true}
	h.writers = []track{
		{every: 100 * ms, attempts: []attempt{done(0, 10*ms, 1), done(90*ms, 100*ms, 2), done(200*ms, 210*ms, 1), done(300*ms, 310*ms, 2)}},
		{every: 100 * ms, attempts: []attempt{done(0, 10*ms, 1), done(99*ms, 150*ms, 1), {start: 100 * ms, end: 220 * ms, outcome: unknown}, {start: 300 * ms, end: 301 * ms, outcome: failed}}},
	}
	h.writers[1].kind("57P01", errRolledBack)
	for i, w := range h.writers {
		for seq, a := range w.attempts {
			if a.outcome == acknowledged {
				h.found(i, int64(seq), a.timeline)
			}
		}
	}
	h.moves = h.firstAnswers()
	return h
}

func TestBackAndStale(t *testing.T) {
	h := moved()
	if !slices.Equal(h.moves, []move{{1, 10 * ms}, {2, 100 * ms}}) {
		t.Errorf("moves = %v", h.moves)
	}
	r := newReport(h, "t", 1, nil)
	// Writer 0 was back on 1 once. That one is stale; writer 1 had begun before.
	if r.Back != 1 || r.Stale != 1 || !slices.Equal(r.Timelines, []uint32{1, 2}) || r.Lost != 0 || r.Surplus != 0 {
		t.Errorf("Back %d, Stale %d, Timelines %v, Lost %d, Surplus %d", r.Back, r.Stale, r.Timelines, r.Lost, r.Surplus)
	}
	// The part knows what was before it.
	at := func(d time.Duration) time.Time { return h.base.Add(d) }
	if w := r.Window(at(200*ms), at(300*ms)); w.Back != 1 || w.Stale != 1 || !slices.Equal(w.Timelines, []uint32{1}) {
		t.Errorf("200-300 ms: Back %d, Stale %d, Timelines %v", w.Back, w.Stale, w.Timelines)
	}
	if w := r.Window(at(0), at(200*ms)); w.Back != 0 || w.Stale != 0 {
		t.Errorf("0-200 ms: Back %d, Stale %d", w.Back, w.Stale)
	}
	// The unknown one had committed: on the old timeline, and too late.
	h = moved()
	h.found(1, 2, 1)
	if r := newReport(h, "t", 1, nil); r.Stale != 2 || r.Committed != 1 || r.Back != 1 {
		t.Errorf("unknown, on 1: Stale %d, Committed %d, Back %d", r.Stale, r.Committed, r.Back)
	}
	h = moved()
	h.found(1, 2, 2)
	if r := newReport(h, "t", 1, nil); r.Stale != 1 || r.Committed != 1 {
		t.Errorf("unknown, on 2: Stale %d, Committed %d", r.Stale, r.Committed)
	}
}

// A row that is there, but is not the one that was acknowledged, was sent twice.
func TestFoundOnAnotherTimeline(t *testing.T) {
	h := moved()
	h.forget()
	if r := newReport(h, "t", 1, nil); r.Lost != 6 || r.Surplus != 0 {
		t.Errorf("forgotten: Lost %d, Surplus %d", r.Lost, r.Surplus)
	}
	h.found(0, 0, 2)
	h.found(1, 2, 2)
	if r := newReport(h, "t", 1, nil); r.Lost != 6 || r.Surplus != 1 || r.Committed != 1 {
		t.Errorf("on another one: Lost %d, Surplus %d, Committed %d", r.Lost, r.Surplus, r.Committed)
	}
	h.found(0, 0, 1)
	if r := newReport(h, "t", 1, nil); r.Lost != 5 || r.Surplus != 1 {
		t.Errorf("on its own too: Lost %d, Surplus %d", r.Lost, r.Surplus)
	}
	h.forget()
	if a := h.writers[1].attempts[2]; a.timeline != 0 || a.present || h.strays != 0 {
		t.Errorf("%+v and %d strays are not forgotten", a, h.strays)
	}
}

func TestReads(t *testing.T) {
	type answer struct {
		reader  int
		start   time.Duration
		newest  int32
		standby bool
		on      uint32
	}
	// Reader 0 asks for writer 0, then for writer 1; reader 1 for writer 1 first.
	for _, c := range []struct {
		name    string
		answers []answer
		want    Reads
	}{
		{"all is there", []answer{{0, 20 * ms, 0, false, 1}, {0, 160 * ms, 1, false, 2}}, Reads{}},
		{"nothing was acknowledged yet", []answer{{0, 5 * ms, -1, false, 1}}, Reads{}},
		{"acknowledged while it was under way", []answer{{0, 10 * ms, -1, false, 1}}, Reads{}},
		{"more than was acknowledged", []answer{{0, 20 * ms, 7, false, 1}}, Reads{}},
		{"an old primary that lacks a row", []answer{{0, 50 * ms, -1, false, 1}}, Reads{Stale: 1}},
		{"an old primary that lacks none", []answer{{0, 99 * ms, 0, false, 1}, {0, 120 * ms, 0, false, 1}}, Reads{Stale: 1}},
		{"a new primary without what the old one acknowledged", []answer{{1, 320 * ms, 0, false, 2}}, Reads{}},
		{"a new primary without what it acknowledged itself", []answer{{0, 320 * ms, 0, false, 2}}, Reads{Stale: 1}},
		{"back", []answer{{0, 160 * ms, 1, false, 2}, {0, 170 * ms, 1, false, 1}}, Reads{Back: 1, Stale: 1}},
		{"another one is not back", []answer{{0, 160 * ms, 1, false, 2}, {1, 99 * ms, 0, false, 1}}, Reads{}},
		{"a standby that lags", []answer{{0, 50 * ms, -1, true, 0}, {0, 51 * ms, -1, true, 0}}, Reads{Behind: 2, Lag: 41 * ms}},
		{"a standby on an old timeline", []answer{{0, 160 * ms, 1, false, 2}, {0, 170 * ms, 1, true, 1}}, Reads{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := moved()
			h.readers = []track{{every: 10 * ms, reads: true}, {every: 10 * ms, reads: true}}
			for _, a := range c.answers {
				h.readers[a.reader].add(record{done(a.start, a.start+ms, a.on), view{a.newest, a.standby}})
			}
			// A failed one in between changes nothing.
			h.readers[1].add(record{attempt: attempt{start: 390 * ms, end: 391 * ms, outcome: failed, kind: h.readers[1].kind("57P01", errRolledBack)}})
			h.moves = h.firstAnswers()
			r := newReport(h, "t", 1, nil).Reads
			if r.Back != c.want.Back || r.Stale != c.want.Stale || r.Behind != c.want.Behind || r.Lag != c.want.Lag {
				t.Errorf("%+v, want %+v", r, c.want)
			}
			if r.Sent != len(c.answers)+1 || r.Answered != len(c.answers) || r.Failed != 1 || r.BySQLState["57P01"] != 1 || r.Readers != 2 {
				t.Errorf("%+v", r)
			}
		})
	}
}

// What a reader on a new primary has seen counts as a move too.
func TestReaderSeesTheMove(t *testing.T) {
	h := moved()
	h.readers = []track{{reads: true}}
	h.readers[0].add(record{done(50*ms, 60*ms, 3), view{newest: 0, standby: true}}) // no primary's
	h.readers[0].add(record{done(80*ms, 90*ms, 2), view{newest: 0}})
	if m := h.firstAnswers(); !slices.Equal(m, []move{{1, 10 * ms}, {2, 90 * ms}}) {
		t.Errorf("moves = %v", m)
	}
}

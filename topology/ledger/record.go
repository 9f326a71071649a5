package ledger

import (
	"slices"
	"sort"
	"time"
)

// attempt is the record of one transaction. Its writer and sequence number
// are where it is stored, and when it was due follows from these: 24 bytes.
type attempt struct {
	start, end time.Duration // since the base of the run
	outcome    outcome
	present    bool   // found by the check
	kind       uint16 // of its failure, an index into its writer's kinds
}

// failure is a kind of failure, with the text of its first occurrence.
type failure struct{ kind, text string }

// track is all that one writer did.
type track struct {
	offset   time.Duration // when its sequence number 0 was due
	attempts []attempt     // by sequence number, hence also by time
	failures []failure
}

// kind returns the index of a kind of failure, keeping the first text of each.
func (t *track) kind(kind string, err error) uint16 {
	for i, f := range t.failures {
		if f.kind == kind {
			return uint16(i)
		}
	}
	t.failures = append(t.failures, failure{kind, oneLine(err)})
	return uint16(len(t.failures) - 1)
}

// from returns the first attempt that ended at or after at.
func (t *track) from(at time.Duration) int {
	return sort.Search(len(t.attempts), func(i int) bool { return t.attempts[i].end >= at })
}

// history is a whole run; nothing changes it once its Report is out.
type history struct {
	base     time.Time
	every    time.Duration
	began    time.Duration // when the first transaction was due
	stopped  time.Duration // when Stop was called: no transaction was started after
	tracks   []track
	direct   []time.Duration // when a node accepted a write itself, sorted
	measured bool            // there were nodes to ask
	strays   int             // rows of this run that belong to no transaction that could have written them
	checked  bool
}

// last is just after the end of everything.
func (h *history) last() time.Duration {
	last := h.stopped
	for _, t := range h.tracks {
		if n := len(t.attempts); n > 0 {
			last = max(last, t.attempts[n-1].end)
		}
	}
	return last + 1
}

func (h *history) clone() *history {
	c := *h
	c.tracks = slices.Clone(h.tracks)
	for i := range c.tracks {
		c.tracks[i].attempts = slices.Clone(c.tracks[i].attempts)
	}
	return &c
}

func (h *history) due(t *track, seq int) time.Duration {
	return t.offset + time.Duration(seq)*h.every
}

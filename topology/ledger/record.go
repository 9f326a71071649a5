package ledger

import (
	"slices"
	"sort"
	"time"
)

// attempt is the record of one transaction. Its client and sequence number are
// where it is stored, and when it was due follows from these: 24 bytes.
type attempt struct {
	start, end time.Duration // since the base of the run
	timeline   uint32        // that it saw, or that its row has; 0: not known
	kind       uint16        // of its failure, an index into its client's kinds
	outcome    outcome
	present    bool // found by the check
}

// accepted tells whether a server took the write, whatever the client knows.
func (a attempt) accepted() bool { return a.outcome == acknowledged || a.present }

// record is an attempt, and what it showed if it was a read.
type record struct {
	attempt
	view
}

// failure is a kind of failure, with the text of its first occurrence.
type failure struct{ kind, text string }

// track is all that one client did.
type track struct {
	offset   time.Duration // when its sequence number 0 was due
	every    time.Duration
	reads    bool
	attempts []attempt // by sequence number, hence also by time
	views    []view    // of each attempt, of a reader only
	failures []failure
}

func (t *track) add(rec record) {
	t.attempts = append(t.attempts, rec.attempt)
	if t.reads {
		t.views = append(t.views, rec.view)
	}
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

func (t *track) due(seq int) time.Duration { return t.offset + time.Duration(seq)*t.every }

// from returns the first attempt that ended at or after at.
func (t *track) from(at time.Duration) int {
	return sort.Search(len(t.attempts), func(i int) bool { return t.attempts[i].end >= at })
}

// part returns the attempts that ended from (inclusive) to (exclusive), as
// begin (inclusive) to end (exclusive).
func (t *track) part(from, to time.Duration) (begin, end int) {
	begin = t.from(from)
	return begin, max(t.from(to), begin)
}

// history is a whole run; nothing changes it once its Report is out.
type history struct {
	base     time.Time
	began    time.Duration // when the first transaction was due
	stopped  time.Duration // when Stop was called: no transaction was started after
	writers  []track
	readers  []track
	moves    []move          // from one timeline to the next
	direct   []time.Duration // when a node accepted a write itself, sorted
	measured bool            // there were nodes to ask
	strays   int             // rows of this run that belong to no transaction that could have written them
	checked  bool
}

// last is just after the end of everything.
func (h *history) last() time.Duration {
	last := h.stopped
	for _, tracks := range [][]track{h.writers, h.readers} {
		for _, t := range tracks {
			if n := len(t.attempts); n > 0 {
				last = max(last, t.attempts[n-1].end)
			}
		}
	}
	return last + 1
}

// clone shares what the check does not change.
func (h *history) clone() *history {
	c := *h
	c.writers = slices.Clone(h.writers)
	for i := range c.writers {
		c.writers[i].attempts = slices.Clone(c.writers[i].attempts)
	}
	return &c
}

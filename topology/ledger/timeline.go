package ledger

import (
	"slices"
	"time"
)

// move is the moment at which a client was first answered by the primary of a
// timeline. From then on it is an error that one of an older timeline serves.
type move struct {
	timeline uint32
	at       time.Duration
}

// firstAnswers returns the moves of a run, ordered by timeline.
func (h *history) firstAnswers() []move {
	var moves []move
	enter := func(a attempt) {
		at, known := slices.BinarySearchFunc(moves, a.timeline, func(m move, t uint32) int { return int(m.timeline) - int(t) })
		switch {
		case !known:
			moves = slices.Insert(moves, at, move{a.timeline, a.end})
		case a.end < moves[at].at:
			moves[at].at = a.end
		}
	}
	for _, t := range h.writers {
		for _, a := range t.attempts {
			if a.outcome == acknowledged {
				enter(a)
			}
		}
	}
	for _, t := range h.readers {
		for seq, a := range t.attempts {
			if a.outcome == acknowledged && !t.views[seq].standby {
				enter(a)
			}
		}
	}
	return moves
}

// staleWrite tells whether a was accepted on an older timeline, see
// Report.Stale.
func (h *history) staleWrite(a attempt) bool { return a.accepted() && h.superseded(a) }

// staleRead tells whether a primary answered that was none any more, see
// Reads.Stale.
func (h *history) staleRead(reader, seq int) bool {
	t := &h.readers[reader]
	a := t.attempts[seq]
	if a.outcome != acknowledged || t.views[seq].standby {
		return false
	}
	return h.superseded(a) || h.behind(reader, seq) > 0
}

// superseded tells whether a was started after the primary of a newer timeline
// than its own had answered somebody.
func (h *history) superseded(a attempt) bool {
	return slices.ContainsFunc(h.moves, func(m move) bool { return m.timeline > a.timeline && m.at <= a.start })
}

// behind is how long a row of the writer that a reader asked for had been
// acknowledged when the read was started, though the answer does not show it.
// Zero means that it showed all that it had to, or that there was no answer. A
// primary does not have to show what was acknowledged on an older timeline: if
// that is not there, it is lost, which is not the reader's matter.
func (h *history) behind(reader, seq int) time.Duration {
	r := &h.readers[reader]
	read, view := r.attempts[seq], r.views[seq]
	if read.outcome != acknowledged {
		return 0
	}
	w := &h.writers[watched(reader, seq, len(h.writers))]
	for _, a := range w.attempts[min(int(view.newest)+1, len(w.attempts)):] {
		if a.end >= read.start {
			break
		}
		if a.outcome == acknowledged && (view.standby || a.timeline >= read.timeline) {
			return read.start - a.end
		}
	}
	return 0
}

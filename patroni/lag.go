package patroni

import (
	"slices"
	"time"
)

// defaultLag is Source.MaxLag's zero value.
const defaultLag = 10 * time.Second

// written is how far the primary had written its WAL, and when: what a replica's position is measured by. It is of one
// timeline, since positions of two of them do not compare, and reaches back as far as a fresh replica may lag.
type written struct {
	systemID string
	timeline uint32
	marks    []mark // the oldest first; bounded: marks that lie close together are one
}

type mark struct {
	at  time.Time // when the primary was asked
	lsn uint64
}

// marksKept is about how many marks make up the whole span.
const marksKept = 64

// note takes an answer of the primary's.
func (h *written) note(e Epoch, p Proof, span time.Duration) {
	if p.Err != nil || !p.Writable || p.LSN == 0 || p.SystemID != e.SystemID || p.Timeline != e.Timeline {
		return // of nobody whom replicas that are fresh would follow
	}
	if h.systemID != e.SystemID || h.timeline != e.Timeline {
		*h = written{systemID: e.SystemID, timeline: e.Timeline, marks: h.marks[:0]}
	}
	n := len(h.marks)
	if n > 0 && !p.At.After(h.marks[n-1].at) {
		return // seen already
	}
	for n > 0 && h.marks[n-1].lsn > p.LSN {
		n-- // a crash has taken what was not flushed
	}
	if n > 1 && p.At.Sub(h.marks[n-2].at) < span/marksKept {
		n-- // the one before it is close enough
	}
	h.marks = append(h.marks[:n], mark{p.At, p.LSN})
	old := 0 // the newest mark that is as old as the span, if there is one, is the first that stays
	for old+1 < len(h.marks) && p.At.Sub(h.marks[old+1].at) >= span {
		old++
	}
	h.marks = slices.Delete(h.marks, 0, old)
}

// reached reports whether a position is one that the primary had reached a span ago, or when it was first asked.
// Nothing is known of a primary that was never asked.
func (h *written) reached(lsn uint64) bool {
	return len(h.marks) == 0 || lsn >= h.marks[0].lsn
}

// behind is how long ago the primary was where a position is; of one that is out of sight it is the span that is.
func (h *written) behind(lsn uint64) time.Duration {
	if len(h.marks) == 0 {
		return 0
	}
	i := len(h.marks) - 1
	for i > 0 && h.marks[i].lsn > lsn {
		i--
	}
	return h.marks[len(h.marks)-1].at.Sub(h.marks[i].at)
}

// sawPosition notes how far the primary has written, where replicas are measured by it.
func (w *sourceWatch) sawPosition() {
	if w.Replicas && w.answer != nil && !w.epoch.IsZero() {
		w.written.note(w.epoch, w.answer.Proof, w.lagSpan())
	}
}

func (s *Source) lagSpan() time.Duration {
	if s.MaxLag > 0 {
		return s.MaxLag
	}
	return defaultLag
}

// inTime reports whether a replica has replayed what it must have, and how far it is behind. Of one that was late more is
// asked, so that it does not come and go. A prober that tells no positions asks for nothing.
func (w *sourceWatch) inTime(pr *probe, p Proof) (bool, time.Duration) {
	if p.LSN == 0 || p.Err != nil {
		return true, 0
	}
	lag := w.written.behind(p.LSN)
	pr.late = w.MaxLag >= 0 && (!w.written.reached(p.LSN) || pr.late && lag > w.lagSpan()/2)
	return !pr.late, lag
}

package ledger

import (
	"slices"
	"time"
)

// mark is a named moment: one that begins a part of the run, or a note.
type mark struct {
	at   time.Time
	name string
	note bool
}

// Note is a named moment that begins no part of a run.
type Note struct {
	At   time.Time `json:"at"`
	Name string    `json:"name"`
}

// Mark names this moment and returns it. The report has a part from each mark
// to the next (Report.Events). Call it just before doing what it names.
func (l *Ledger) Mark(name string) time.Time {
	now := time.Now()
	l.MarkAt(now, name)
	return now
}

// MarkAt is Mark for a moment that was learned later. Marks may come in any
// order, also after Stop, for the next one. One outside of the run counts as
// the run's begin or end.
func (l *Ledger) MarkAt(at time.Time, name string) { l.enterMark(mark{at: at, name: name}) }

// Note names this moment and returns it. A note begins no part of the report:
// it is listed (Report.Notes) and drawn.
func (l *Ledger) Note(name string) time.Time {
	now := time.Now()
	l.NoteAt(now, name)
	return now
}

// NoteAt is Note for a moment that was learned later, as MarkAt is Mark.
func (l *Ledger) NoteAt(at time.Time, name string) { l.enterMark(mark{at: at, name: name, note: true}) }

func (l *Ledger) enterMark(m mark) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.marks = append(l.marks, m)
}

// marked returns the marks and notes so far.
func (l *Ledger) marked() []mark {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.marks)
}

// inOrder sorts marks by time and moves those outside of the run to its ends.
func inOrder(marks []mark, from, to time.Time) []mark {
	sorted := slices.Clone(marks)
	slices.SortStableFunc(sorted, func(a, b mark) int { return a.at.Compare(b.at) })
	for i := range sorted {
		if m := &sorted[i]; m.at.Before(from) {
			m.at = from
		} else if m.at.After(to) {
			m.at = to
		}
	}
	return sorted
}

// notes returns the notes of the part from (inclusive) to (exclusive).
func notes(marks []mark, from, to time.Time) []Note {
	var some []Note
	for _, m := range marks {
		if m.note && !m.at.Before(from) && m.at.Before(to) {
			some = append(some, Note{m.at, m.name})
		}
	}
	return some
}

package ledger

import (
	"slices"
	"testing"
	"time"
)

func TestMarks(t *testing.T) {
	h := scripted()
	at := func(d time.Duration) time.Time { return h.base.Add(d) }
	l := &Ledger{}
	l.MarkAt(at(400*ms), "last")
	l.NoteAt(at(50*ms), "before")
	l.MarkAt(at(-time.Hour), "too early")
	l.NoteAt(at(450*ms), "within")
	l.MarkAt(at(100*ms).Round(0), "by the clock on the wall") // which the sum of a time and a duration has too
	l.NoteAt(at(time.Hour), "too late")
	r := newReport(h, "t", 1, l.marked())

	var names []string
	sent := 0
	for i, e := range r.Events {
		names = append(names, e.Name)
		sent += e.Sent
		if i > 0 && !e.From.Equal(r.Events[i-1].To) {
			t.Errorf("%s begins at %v, the one before ends at %v", e.Name, e.From, r.Events[i-1].To)
		}
	}
	if want := []string{"too early", "by the clock on the wall", "last"}; !slices.Equal(names, want) {
		t.Fatalf("parts %q, want %q", names, want)
	}
	if sent != r.Sent || !r.Events[0].From.Equal(r.From) || !r.Events[2].To.Equal(r.To) {
		t.Errorf("the parts have %d of %d, from %v to %v", sent, r.Sent, r.Events[0].From, r.Events[2].To)
	}
	list := func(notes []Note) (names []string) {
		for _, n := range notes {
			names = append(names, n.Name)
		}
		return names
	}
	if got := list(r.Notes); !slices.Equal(got, []string{"before", "within", "too late"}) {
		t.Errorf("notes %q", got)
	}
	for i, want := range [][]string{{"before"}, nil, {"within", "too late"}} {
		if got := list(r.Events[i].Notes); !slices.Equal(got, want) {
			t.Errorf("notes of %s: %q, want %q", r.Events[i].Name, got, want)
		}
	}
}

func TestMarkAndNoteNow(t *testing.T) {
	l := &Ledger{}
	began := time.Now()
	m, n := l.Mark("m"), l.Note("n")
	if m.Before(began) || n.Before(m) || n.After(time.Now()) {
		t.Errorf("began %v, mark %v, note %v", began, m, n)
	}
	if got := l.marked(); len(got) != 2 || got[0] != (mark{m, "m", false}) || got[1] != (mark{n, "n", true}) {
		t.Errorf("%v", got)
	}
}

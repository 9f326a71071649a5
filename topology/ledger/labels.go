package ledger

import (
	"cmp"
	"slices"
	"unicode/utf8"
)

// label is the name of a moment, above the lanes of a picture.
type label struct {
	x    float64 // of the moment
	text string
	ink  string // attributes of its text
	line string // and of its line

	row      int     // from the top; -1: there was no room for it
	from, to float64 // where its text is
}

// The room for labels, in pixels.
const (
	labelRows   = 10
	labelHeight = 15.0
	labelLetter = 6.6 // the width of a letter, generously
	labelGap    = 4.0
	labelLength = 40 // letters
)

// place gives each label a row and returns how many rows there are. No two
// texts overlap, and no line, which goes down from its label, crosses another
// text, except for those that had to move to the left of their line at the
// right edge.
func place(labels []label, right float64) int {
	slices.SortStableFunc(labels, func(a, b label) int { return cmp.Compare(a.x, b.x) })
	rows := 0
	for i := range labels {
		l := &labels[i]
		l.text = cut(l.text, labelLength)
		width := labelLetter*float64(utf8.RuneCountInString(l.text)) + labelGap
		l.from = min(l.x+labelGap, right-width)
		l.to = l.from + width
		for _, earlier := range labels[:i] {
			// Below it, not only beside it: its own line must not cross that one.
			if earlier.row >= l.row && earlier.to > min(l.from, l.x) {
				l.row = earlier.row + 1
			}
		}
		if l.row >= labelRows {
			l.row = -1
		}
		rows = max(rows, l.row+1)
	}
	return rows
}

// cut shortens a text to so many letters.
func cut(s string, length int) string {
	if utf8.RuneCountInString(s) <= length {
		return s
	}
	return string([]rune(s)[:length-1]) + "…"
}

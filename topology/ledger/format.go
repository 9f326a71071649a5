package ledger

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// String is a small table: a line for each event, one for the whole, and one
// that says what the failures were.
func (r Report) String() string {
	grid := [][]string{{"", "sent", "failed", "unknown", "lost", "surplus", "p99", "stall", "silence", "server gap"}}
	for _, e := range r.Events {
		grid = append(grid, e.row())
	}
	grid = append(grid, r.row())
	var b strings.Builder
	align(&b, grid)
	if r.Failed > 0 {
		b.WriteString("failures: " + r.kinds() + "\n")
		if r.FirstError != "" {
			b.WriteString("the first: " + r.FirstError + "\n")
		}
	}
	if !r.Checked {
		b.WriteString("not checked: the rows were not read back\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func (r Report) row() []string {
	lost, surplus, gap := "?", "?", "-"
	if r.Checked {
		lost, surplus = strconv.Itoa(r.Lost), strconv.Itoa(r.Surplus)
	}
	if r.ServerGap > 0 {
		gap = short(r.ServerGap)
	}
	return []string{
		cmp.Or(r.Name, "whole run"),
		strconv.Itoa(r.Sent), strconv.Itoa(r.Failed), strconv.Itoa(r.Unknown), lost, surplus,
		short(r.P99), short(r.Stall), short(r.Silence), gap,
	}
}

// kinds lists the failures, the most frequent first.
func (r Report) kinds() string {
	keys := slices.SortedFunc(maps.Keys(r.BySQLState), func(a, b string) int {
		return cmp.Or(r.BySQLState[b]-r.BySQLState[a], strings.Compare(a, b))
	})
	for i, k := range keys {
		keys[i] = fmt.Sprintf("%d %s", r.BySQLState[k], k)
	}
	s := strings.Join(keys, ", ")
	if r.Unknown > 0 && r.Checked {
		s += fmt.Sprintf("; of %d unknown %d had committed", r.Unknown, r.Committed)
	}
	return s
}

// align writes a grid with its first column to the left, the others to the right.
func align(b *strings.Builder, grid [][]string) {
	width := make([]int, len(grid[0]))
	for _, row := range grid {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range grid {
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				b.WriteString(cell + pad)
			} else {
				b.WriteString("  " + pad + cell)
			}
		}
		b.WriteByte('\n')
	}
}

// short rounds to what a person wants to know.
func short(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		d = d.Round(100 * time.Millisecond)
	case d >= 10*time.Millisecond:
		d = d.Round(time.Millisecond)
	default:
		d = d.Round(100 * time.Microsecond)
	}
	return d.String()
}

// span is a duration that reads "142ms" in JSON, as ParseDuration takes it.
type span time.Duration

func (s span) MarshalText() ([]byte, error) {
	return []byte(time.Duration(s).Round(time.Microsecond).String()), nil
}

func (s *span) UnmarshalText(b []byte) error {
	d, err := time.ParseDuration(string(b))
	*s = span(d)
	return err
}

// fields is Report without its methods.
type fields Report

// spans hides the durations of the Report that is embedded beside it.
type spans struct {
	*fields
	Stall     span `json:"stall"`
	Silence   span `json:"silence"`
	P50       span `json:"p50"`
	P99       span `json:"p99"`
	ServerGap span `json:"server_gap"`
}

// MarshalJSON writes durations as text, rounded to microseconds: "142.07ms".
func (r Report) MarshalJSON() ([]byte, error) {
	return json.Marshal(spans{
		(*fields)(&r),
		span(r.Stall), span(r.Silence), span(r.P50), span(r.P99), span(r.ServerGap),
	})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (r *Report) UnmarshalJSON(b []byte) error {
	s := spans{fields: (*fields)(r)}
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	r.Stall, r.Silence = time.Duration(s.Stall), time.Duration(s.Silence)
	r.P50, r.P99 = time.Duration(s.P50), time.Duration(s.P99)
	r.ServerGap = time.Duration(s.ServerGap)
	return nil
}

// oneLine is the text of an error for a line of its own.
func oneLine(err error) string {
	if err == nil {
		return ""
	}
	return strings.Join(strings.Fields(err.Error()), " ")
}

package ledger

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// String is a small table: a line for each event, one for the whole, the same
// for the readers, and lines that say what the failures were.
func (r Report) String() string {
	var b strings.Builder
	var writes string
	if r.Reads.Readers > 0 {
		writes = "writes"
	}
	grid := [][]string{{
		writes, "sent", "failed", "unknown", "lost", "surplus", "back", "stale",
		"p99", "stall", "silence", "server gap",
	}}
	for _, e := range append(slices.Clone(r.Events), r) {
		grid = append(grid, e.row())
	}
	align(&b, grid)
	if r.Reads.Readers > 0 {
		grid = [][]string{{"reads", "sent", "failed", "back", "stale", "behind", "lag", "p99", "stall", "silence"}}
		for _, e := range append(slices.Clone(r.Events), r) {
			grid = append(grid, e.Reads.row(e.name()))
		}
		align(&b, grid)
	}
	if len(r.Timelines) > 1 {
		fmt.Fprintf(&b, "timelines: %s\n", strings.Trim(fmt.Sprint(r.Timelines), "[]"))
	}
	if len(r.Notes) > 0 {
		list := make([]string, len(r.Notes))
		for i, n := range r.Notes {
			list[i] = fmt.Sprintf("%.3fs %s", n.At.Sub(r.From).Seconds(), n.Name)
		}
		b.WriteString("notes: " + strings.Join(list, ", ") + "\n")
	}
	if r.Failed > 0 {
		b.WriteString("failures: " + kinds(r.BySQLState))
		if r.Unknown > 0 && r.Checked {
			fmt.Fprintf(&b, "; of %d unknown %d had committed", r.Unknown, r.Committed)
		}
		b.WriteByte('\n')
		first(&b, r.FirstError)
	}
	if r.Reads.Failed > 0 {
		b.WriteString("failed reads: " + kinds(r.Reads.BySQLState) + "\n")
		first(&b, r.Reads.FirstError)
	}
	if !r.Checked {
		b.WriteString("not checked: the rows were not read back\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func first(b *strings.Builder, text string) {
	if text != "" {
		b.WriteString("the first: " + text + "\n")
	}
}

func (r Report) name() string { return cmp.Or(r.Name, "whole run") }

func (r Report) row() []string {
	lost, surplus, gap := "?", "?", "-"
	if r.Checked {
		lost, surplus = strconv.Itoa(r.Lost), strconv.Itoa(r.Surplus)
	}
	if r.ServerGap > 0 {
		gap = short(r.ServerGap)
	}
	return []string{
		r.name(),
		strconv.Itoa(r.Sent), strconv.Itoa(r.Failed), strconv.Itoa(r.Unknown), lost, surplus,
		strconv.Itoa(r.Back), strconv.Itoa(r.Stale),
		short(r.P99), short(r.Stall), short(r.Silence), gap,
	}
}

func (r Reads) row(name string) []string {
	return []string{
		name,
		strconv.Itoa(r.Sent), strconv.Itoa(r.Failed), strconv.Itoa(r.Back), strconv.Itoa(r.Stale),
		strconv.Itoa(r.Behind), short(r.Lag), short(r.P99), short(r.Stall), short(r.Silence),
	}
}

// kinds lists the failures, the most frequent first.
func kinds(count map[string]int) string {
	keys := slices.SortedFunc(maps.Keys(count), func(a, b string) int {
		return cmp.Or(count[b]-count[a], strings.Compare(a, b))
	})
	for i, k := range keys {
		keys[i] = fmt.Sprintf("%d %s", count[k], k)
	}
	return strings.Join(keys, ", ")
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

// oneLine is the text of an error for a line of its own.
func oneLine(err error) string {
	if err == nil {
		return ""
	}
	return strings.Join(strings.Fields(err.Error()), " ")
}

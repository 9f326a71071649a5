package ledger

import (
	"math"
	"time"
)

// verdict is what a picture distinguishes among the bad transactions.
type verdict int

const (
	badFailed verdict = iota
	badUnknown
	badLost
	badSurplus
	badStale
	verdicts
)

// bin is what happened in one short piece of time.
type bin struct {
	answered        int // in it
	median, slowest time.Duration
	behind          time.Duration // the most, of the reads that were due in it
	bad             [verdicts]map[string]int

	latencies []time.Duration
}

// scale cuts the time of a report into bins of equal width.
type scale struct {
	from  time.Time
	span  time.Duration
	width time.Duration
	n     int
}

// newScale makes at most limit bins, and so few that there are some answers in
// each: a rate would be noise otherwise.
func newScale(r Report, limit int) scale {
	const some, few = 10, 50
	span := r.To.Sub(r.From)
	n := min(max(max(r.Acknowledged, r.Reads.Answered)/some, few), limit)
	width := max(span/time.Duration(n), 1)
	return scale{from: r.From, span: span, width: width, n: int((span + width - 1) / width)}
}

// at is the bin of a moment; what lies outside counts to the nearest one.
func (s scale) at(t time.Time) int {
	return min(max(int(t.Sub(s.from)/s.width), 0), s.n-1)
}

// rates are the answers per second.
func (s scale) rates(bins []bin) []float64 {
	rates := make([]float64, len(bins))
	for i, b := range bins {
		covered := min(s.width, s.span-time.Duration(i)*s.width)
		rates[i] = float64(b.answered) / max(covered, s.width/2).Seconds()
	}
	return rates
}

// bins sorts the attempts of a report into bins: the writes and the reads.
// Latency belongs to the moment at which a transaction was due, as a client
// that comes then experiences it; what became of it to that of its end.
func (s scale) bins(r Report) (writes, reads []bin) {
	writes, reads = make([]bin, s.n), make([]bin, s.n)
	for a := range r.Attempts() {
		bins := writes
		if a.Read {
			bins = reads
		}
		due, end := &bins[s.at(a.Due)], &bins[s.at(a.End)]
		latency := a.End.Sub(a.Due)
		due.slowest = max(due.slowest, latency)
		due.behind = max(due.behind, a.Behind)
		if a.Outcome == Acknowledged {
			due.latencies = append(due.latencies, latency)
			end.answered++
		}
		end.judge(a, r.Checked)
	}
	for _, bins := range [][]bin{writes, reads} {
		for i := range bins {
			bins[i].median = percentile(bins[i].latencies, 50)
			bins[i].latencies = nil
		}
	}
	return writes, reads
}

func (b *bin) judge(a Attempt, checked bool) {
	count := func(v verdict, kind string) {
		if b.bad[v] == nil {
			b.bad[v] = map[string]int{}
		}
		b.bad[v][kind]++
	}
	switch {
	case a.Outcome == Unknown:
		count(badUnknown, a.Err)
	case a.Outcome == Failed && a.Present:
		count(badSurplus, a.Err)
	case a.Outcome == Failed:
		count(badFailed, a.Err)
	case checked && !a.Read && !a.Present:
		count(badLost, "acknowledged, and not there")
	}
	if a.Stale {
		count(badStale, "answered by an old primary")
	}
}

// nice rounds up to 1, 2 or 5 times a power of ten.
func nice[T ~int64 | ~float64](v T) T {
	power := math.Pow(10, math.Floor(math.Log10(float64(v))))
	for _, step := range []float64{1, 2, 5} {
		if step*power >= float64(v) {
			return T(step * power)
		}
	}
	return T(10 * power)
}

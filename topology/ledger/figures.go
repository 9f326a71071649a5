package ledger

import (
	"slices"
	"sort"
	"time"
)

const (
	// burst separates failures of one break from those of the next.
	burst = time.Second
	// blink is how long a break may take to reach every client: several
	// poolers notice it each for themselves.
	blink = 50 * time.Millisecond
)

// tally is what writers and readers have in common, over a part of a run.
type tally struct {
	sent, answered int
	stall, silence time.Duration
	p50, p99       time.Duration
	breaks         []time.Duration // when the others failed, in no order
	kinds          map[string]int
	firstError     string
}

func (h *history) tally(tracks []track, from, to time.Duration) tally {
	var s tally
	var latencies []time.Duration
	answers := newGaps(from, min(to, h.stopped))
	first := to
	for i := range tracks {
		t := &tracks[i]
		begin, end := t.part(from, to)
		if before := lastAcknowledged(t.attempts[:begin]); before >= 0 {
			answers.before(before)
		}
		s.sent += end - begin
		for seq := begin; seq < end; seq++ {
			a := &t.attempts[seq]
			latency := a.end - t.due(seq)
			s.stall = max(s.stall, latency)
			if a.outcome == acknowledged {
				latencies = append(latencies, latency)
				answers.add(a.end)
				continue
			}
			s.breaks = append(s.breaks, a.end)
			f := t.failures[a.kind]
			if s.kinds == nil {
				s.kinds = map[string]int{}
			}
			s.kinds[f.kind]++
			if a.end < first {
				first, s.firstError = a.end, f.text
			}
		}
	}
	s.answered = len(latencies)
	s.silence = answers.longest(h.began)
	s.p50, s.p99 = percentile(latencies, 50), percentile(latencies, 99)
	return s
}

func lastAcknowledged(attempts []attempt) time.Duration {
	for _, a := range slices.Backward(attempts) {
		if a.outcome == acknowledged {
			return a.end
		}
	}
	return -1
}

// percentile is the nearest-rank one: a time that was really seen. It sorts d.
func percentile(d []time.Duration, p int) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[max((len(d)*p+99)/100-1, 0)]
}

// gaps finds the longest time between two moments out of many.
type gaps struct {
	from, to time.Duration
	prev     time.Duration // the last moment before from, -1 without
	at       []time.Duration
}

func newGaps(from, to time.Duration) *gaps { return &gaps{from: from, to: to, prev: -1} }

// before enters a moment before the part.
func (g *gaps) before(at time.Duration) { g.prev = max(g.prev, at) }

// add enters a moment of the part, in any order. What lies behind its end is
// left out: after Stop nothing is sent, so nothing can be missed.
func (g *gaps) add(at time.Duration) {
	if at < g.to {
		g.at = append(g.at, at)
	}
}

// longest is the longest gap that ends in the part, or goes on at its end.
// Without an earlier moment the first gap begins at origin.
func (g *gaps) longest(origin time.Duration) time.Duration {
	slices.Sort(g.at)
	last := g.prev
	if last < 0 {
		last = origin
	}
	var longest time.Duration
	for _, at := range g.at {
		longest = max(longest, at-last)
		last = at
	}
	return max(longest, g.to-last)
}

// serverGap is the longest time without a direct write. h.direct is sorted.
func (h *history) serverGap(from, to time.Duration) time.Duration {
	g := newGaps(from, to)
	begin := sort.Search(len(h.direct), func(i int) bool { return h.direct[i] >= from })
	if begin > 0 {
		g.before(h.direct[begin-1])
	}
	for _, at := range h.direct[begin:] {
		if at >= to {
			break
		}
		g.add(at)
	}
	return g.longest(h.began)
}

// inFlight is Report.InFlight for the moments at which transactions failed. It
// sorts them.
func (h *history) inFlight(breaks []time.Duration) int {
	slices.Sort(breaks)
	most := 0
	for i, at := range breaks {
		if i > 0 && at-breaks[i-1] < burst {
			continue
		}
		n := 0
		for j := range h.writers {
			t := &h.writers[j]
			if k := t.from(at); k < len(t.attempts) && t.attempts[k].start <= at+blink {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

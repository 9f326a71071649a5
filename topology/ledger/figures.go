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
		for j := range h.tracks {
			t := &h.tracks[j]
			if k := t.from(at); k < len(t.attempts) && t.attempts[k].start <= at+blink {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

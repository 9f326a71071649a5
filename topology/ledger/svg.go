package ledger

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// The layout, in pixels.
const (
	pictureWidth  = 1200.0
	pictureLeft   = 100.0 // of the lanes
	pictureRight  = 1184.0
	titleHeight   = 26.0
	latencyHeight = 180.0
	rateHeight    = 90.0
	badHeight     = 16.0
)

// halo keeps a text legible over lines.
const halo = `stroke="#fff" stroke-width="3" stroke-linejoin="round" paint-order="stroke"`

// shadedFrom is the shortest gap of the servers that is drawn.
const shadedFrom = 10 * probeEvery

// WriteSVG draws the run, or the part of it that the report is of, over time:
// how long transactions took, which failed and how many were acknowledged, and
// the same of the reads. Marks are full lines, notes dashed ones, as is the
// moment when a new timeline first answered. Shaded is the time, from 50 ms on,
// in which no node of Load.Direct accepted a write. The picture is one SVG
// document of bounded size, without scripts and references.
//
// It is an error to draw a report that was not made by Stop, one read from JSON
// for instance, or of a part that is empty.
func (r Report) WriteSVG(w io.Writer) error {
	if r.history == nil {
		return errors.New("ledger: this report has figures only and cannot be drawn (was it read from JSON?): draw the one that Stop returned")
	}
	if !r.From.Before(r.To) {
		return fmt.Errorf("ledger: there is nothing to draw from %v to %v", r.From, r.To)
	}
	p := &picture{r: r, scale: newScale(r, int(pictureRight-pictureLeft)/2)}
	p.draw()
	_, err := w.Write(p.Bytes())
	return err
}

// picture is a canvas with a pen that moves down.
type picture struct {
	canvas
	front canvas // what must not be drawn over
	r     Report
	scale scale
	y     float64
}

// draw draws everything. What lies behind the lanes, and the size of the whole,
// depend on how far down the lanes go.
func (p *picture) draw() {
	writes, reads := p.scale.bins(p.r)
	p.header()
	p.legend(writes, reads)

	labels := p.labels()
	labelsTop := p.y
	p.y += labelHeight * float64(place(labels, pictureRight))
	top := p.y + titleHeight

	p.latency("time from due to acknowledged, of the writes due then", writes, writeInk())
	p.bad(writes)
	p.rate(writes, reads)
	if p.r.Reads.Readers > 0 {
		p.latency("time from due to answered, of the reads due then", reads, readInk())
		p.bad(reads)
	}

	lanes := p.canvas
	p.canvas = canvas{}
	bottom := p.y + 4
	p.add(`<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" viewBox="0 0 %[1]g %[2]g" `+
		`font-family="Helvetica, Arial, sans-serif" font-size="11" fill="#333">`, pictureWidth, bottom+36)
	p.rect(0, 0, pictureWidth, bottom+36, "#fff")
	p.shade(top, bottom)
	p.axis(top, bottom)
	p.Write(lanes.Bytes())
	p.names(labels, labelsTop, top, bottom)
	p.Write(p.front.Bytes())
	p.add(`</svg>`)
}

// x is where a moment is drawn.
func (p *picture) x(t time.Time) float64 {
	x := pictureLeft + (pictureRight-pictureLeft)*float64(t.Sub(p.scale.from))/float64(p.scale.span)
	return min(max(x, pictureLeft), pictureRight)
}

// edge is where a bin begins.
func (p *picture) edge(bin int) float64 {
	return p.x(p.scale.from.Add(time.Duration(bin) * p.scale.width))
}

// header tells whose picture it is, in words.
func (p *picture) header() {
	r := p.r
	p.text(16, 26, `font-size="17" font-weight="bold" fill="#111"`, r.name())
	p.text(pictureRight, 26, `text-anchor="end" fill="#666"`, fmt.Sprintf("run %d in %s, from %s", r.Run, r.Table,
		r.From.UTC().Format("2006-01-02 15:04:05 UTC")))
	checked := fmt.Sprintf("%d lost, %d surplus", r.Lost, r.Surplus)
	if !r.Checked {
		checked = "not checked"
	}
	line := fmt.Sprintf("%d writers: %d sent, %d failed (%d unknown), %s, %d back, %d stale; p99 %s, stall %s, silence %s",
		r.Writers, r.Sent, r.Failed, r.Unknown, checked, r.Back, r.Stale, short(r.P99), short(r.Stall), short(r.Silence))
	if r.ServerGap > 0 {
		line += ", server gap " + short(r.ServerGap)
	}
	p.text(16, 46, "", line)
	p.y = 54
	if s := r.Reads; s.Readers > 0 {
		p.text(16, 62, "", fmt.Sprintf("%d readers: %d sent, %d failed, %d back, %d stale, %d behind (lag %s); p99 %s, stall %s, silence %s",
			s.Readers, s.Sent, s.Failed, s.Back, s.Stale, s.Behind, short(s.Lag), short(s.P99), short(s.Stall), short(s.Silence)))
		p.y = 70
	}
}

// labels names the moments of the part: the marks, the notes, and the first
// answer of each new timeline.
func (p *picture) labels() []label {
	var all []label
	enter := func(at time.Time, l label) {
		if !at.Before(p.r.From) && at.Before(p.r.To) {
			l.x = p.x(at)
			all = append(all, l)
		}
	}
	for _, m := range p.r.marks {
		if m.note {
			enter(m.at, label{text: m.name, ink: `fill="#555"`, line: `stroke="#777" stroke-dasharray="3 3"`})
		} else {
			enter(m.at, label{text: m.name, ink: `fill="#111" font-weight="bold"`, line: `stroke="#111" stroke-width="1.3"`})
		}
	}
	for i, m := range p.r.history.moves {
		if i > 0 { // nobody moved to the first
			enter(p.r.history.base.Add(m.at), label{
				text: fmt.Sprintf("timeline %d", m.timeline),
				ink:  `fill="#00704f"`, line: `stroke="#00704f" stroke-dasharray="7 3"`,
			})
		}
	}
	return all
}

// names draws the labels: the lines over the lanes, the texts over everything.
// Those without a name begin at the lanes.
func (p *picture) names(labels []label, top, lanes, bottom float64) {
	unnamed := 0
	for _, l := range labels {
		if l.row < 0 {
			unnamed++
			p.line(l.x, lanes, l.x, bottom, l.line)
			continue
		}
		y := top + labelHeight*float64(l.row)
		p.line(l.x, y+3, l.x, bottom, l.line)
		if l.from < l.x {
			p.front.text(min(l.x-labelGap, l.to), y+12, l.ink+` text-anchor="end" `+halo, l.text)
		} else {
			p.front.text(l.from, y+12, l.ink+" "+halo, l.text)
		}
	}
	if unnamed > 0 {
		p.front.text(pictureLeft-6, top+12, `text-anchor="end" fill="#666"`, fmt.Sprintf("%d more", unnamed))
	}
}

// shade marks the times in which no node accepted a write.
func (p *picture) shade(top, bottom float64) {
	h := p.r.history
	if !h.measured {
		return
	}
	last := h.began
	for _, at := range append(slices.Clone(h.direct), h.stopped) {
		from, to := h.base.Add(last), h.base.Add(at)
		if at-last >= shadedFrom && from.Before(p.r.To) && to.After(p.r.From) {
			p.rect(p.x(from), top, p.x(to)-p.x(from), bottom-top, gapInk)
		}
		last = max(last, at)
	}
}

// axis is the time since the beginning of the run.
func (p *picture) axis(top, bottom float64) {
	began := p.r.history.base.Add(p.r.history.began)
	from, to := p.r.From.Sub(began), p.r.To.Sub(began)
	step := nice(max((to-from)/14, 1))
	for at := (from + step - 1) / step * step; at <= to; at += step {
		x := p.x(began.Add(at))
		p.line(x, top, x, bottom, `stroke="#ededf0"`)
		p.text(x, bottom+14, `text-anchor="middle" fill="#666"`, seconds(at, step))
	}
	p.line(pictureLeft, bottom, pictureRight, bottom, `stroke="#999"`)
	p.text((pictureLeft+pictureRight)/2, bottom+29, `text-anchor="middle" fill="#666"`, "seconds since the first transaction was due")
}

// seconds writes a time with as many digits as its step has.
func seconds(at, step time.Duration) string {
	digits := 0
	for unit := time.Second; step < unit && digits < 9; unit /= 10 {
		digits++
	}
	return fmt.Sprintf("%.*f", digits, at.Seconds())
}

package ledger

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ink is the colours of one kind of client: of the range from the median to
// the slowest, and of the median.
type ink struct{ area, line string }

func writeInk() ink { return ink{"#a9cdec", "#0b4f8a"} }
func readInk() ink  { return ink{"#d5c3ea", "#5a2d91"} }

const (
	rateInk   = "#7fc8a9"
	behindInk = "#8a5a00"
	gapInk    = "#f0e6d8"
)

// look is how a verdict is shown, in colours that the colour-blind can tell
// apart too.
func (v verdict) look() (name, colour, meaning string) {
	switch v {
	case badUnknown:
		return "unknown", "#b0479b", "sent, and no answer"
	case badLost:
		return "lost", "#d00000", "acknowledged, and not there"
	case badSurplus:
		return "surplus", "#111111", "failed, and there"
	case badStale:
		return "stale", "#0072b2", "served by an old primary"
	}
	return "failed", "#e08a00", "surely not done"
}

// title begins a lane.
func (p *picture) title(text string) {
	p.y += titleHeight
	p.front.text(pictureLeft, p.y-7, `font-weight="bold" fill="#555" `+halo, text)
}

// tick labels a height of a lane.
func (p *picture) tick(y float64, text string) {
	p.line(pictureLeft, y, pictureRight, y, `stroke="#e3e3e8"`)
	p.text(pictureLeft-6, y+4, `text-anchor="end" fill="#666"`, text)
}

// latency draws a lane with a logarithmic scale: for each bin the range from
// the median to the slowest, and how far behind reads were.
func (p *picture) latency(title string, bins []bin, ink ink) {
	p.title(title)
	low, high := time.Second, time.Millisecond
	for _, b := range bins {
		if b.median > 0 {
			low = min(low, b.median)
		}
		high = max(high, b.slowest, b.behind)
	}
	bottom := math.Log10(max(low, 10*time.Microsecond).Seconds() / 1.3)
	top := max(math.Log10(high.Seconds()*1.3), bottom+1)
	y0 := p.y
	y := func(d time.Duration) float64 {
		share := (math.Log10(max(d.Seconds(), 1e-9)) - bottom) / (top - bottom)
		return y0 + latencyHeight*(1-min(max(share, 0), 1))
	}
	for d := 10 * time.Microsecond; d.Seconds() <= math.Pow(10, top); d *= 10 {
		if d.Seconds() >= math.Pow(10, bottom) {
			p.tick(y(d), d.String())
		}
	}
	var area, median, behind strings.Builder
	pen := "M"
	for i, b := range bins {
		x, width := p.edge(i), p.edge(i+1)-p.edge(i)
		if b.behind > 0 {
			fmt.Fprintf(&behind, "M%.1f %.1fh%.1f", x, y(b.behind), width)
		}
		if b.slowest > 0 {
			from := b.median
			if from == 0 {
				from = b.slowest // none was answered
			}
			slowest := y(b.slowest)
			fmt.Fprintf(&area, "M%.1f %.1fh%.1fv%.1fh-%.1fz", x, slowest, width, max(y(from)-slowest, 1), width)
		}
		if b.median == 0 {
			pen = "M"
			continue
		}
		fmt.Fprintf(&median, "%s%.1f %.1fh%.1f", pen, x, y(b.median), width)
		pen = "L"
	}
	p.path(&area, `fill="`+ink.area+`" shape-rendering="crispEdges"`)
	p.path(&median, `fill="none" stroke="`+ink.line+`" stroke-width="1.3" stroke-linejoin="round" stroke-linecap="round"`)
	p.path(&behind, `fill="none" stroke="`+behindInk+`" stroke-width="2"`)
	p.y += latencyHeight
}

// bad draws a row of dots for each verdict that occurred.
func (p *picture) bad(bins []bin) {
	p.y += 4
	for v := range verdicts {
		total := 0
		for _, b := range bins {
			total += sum(b.bad[v])
		}
		if total == 0 {
			continue
		}
		name, colour, _ := v.look()
		p.y += badHeight
		y := p.y - badHeight/2 + 2
		p.text(pictureLeft-6, y+4, `text-anchor="end" font-weight="bold" fill="`+colour+`"`, name+" "+strconv.Itoa(total))
		p.line(pictureLeft, y, pictureRight, y, `stroke="#e3e3e8"`)
		for i, b := range bins {
			n := sum(b.bad[v])
			if n == 0 {
				continue
			}
			p.add(`<circle cx="%.1f" cy="%.1f" r="%.1f" fill="%s"><title>%s</title></circle>`,
				(p.edge(i)+p.edge(i+1))/2, y, min(2+math.Sqrt(float64(n))/2, badHeight/2-1), colour, escaped(kinds(b.bad[v])))
		}
	}
}

func sum(count map[string]int) int {
	n := 0
	for _, k := range count {
		n += k
	}
	return n
}

// rate draws the lane of the answers per second. What piled up in a stall is
// answered in a burst, which would press everything else to the ground: the
// scale ends at some more than the usual.
func (p *picture) rate(writes, reads []bin) {
	rates, readRates := p.scale.rates(writes), p.scale.rates(reads)
	usual, peak := 0.0, 0.0
	for _, r := range [][]float64{rates, readRates} {
		busy := slices.DeleteFunc(slices.Sorted(slices.Values(r)), func(rate float64) bool { return rate == 0 })
		if n := len(busy); n > 0 {
			usual, peak = max(usual, busy[n/2]), max(peak, busy[n-1])
		}
	}
	top := nice(max(min(peak, usual*2)*1.05, 1))
	title := "acknowledged writes per second"
	if p.r.Reads.Readers > 0 {
		title = "acknowledged writes and answered reads per second"
	}
	if peak > top {
		title += fmt.Sprintf(" (peak %.0f)", peak)
	}
	p.title(title)
	y0 := p.y
	y := func(rate float64) float64 { return y0 + rateHeight*(1-min(rate/top, 1)) }
	for _, share := range []float64{0, 0.5, 1} {
		p.tick(y(top*share), strconv.FormatFloat(top*share, 'f', -1, 64))
	}
	var area, line strings.Builder
	fmt.Fprintf(&area, "M%.1f %.1f", pictureLeft, y(0))
	pen := "M"
	for i := range rates {
		fmt.Fprintf(&area, "V%.1fH%.1f", y(rates[i]), p.edge(i+1))
		fmt.Fprintf(&line, "%s%.1f %.1fH%.1f", pen, p.edge(i), y(readRates[i]), p.edge(i+1))
		pen = "L"
	}
	fmt.Fprintf(&area, "V%.1fz", y(0))
	p.path(&area, `fill="`+rateInk+`" shape-rendering="crispEdges"`)
	if p.r.Reads.Readers > 0 {
		p.path(&line, `fill="none" stroke="`+readInk().line+`" stroke-linejoin="round"`)
	}
	p.y += rateHeight
}

// legend explains what is drawn, and nothing else.
func (p *picture) legend(writes, reads []bin) {
	x := 16.0
	p.y += 16
	item := func(swatch, text string) {
		width := 20 + labelLetter*float64(len(text)) + 14
		if x+width > pictureRight {
			x, p.y = 16, p.y+16
		}
		p.add(`<g transform="translate(%.1f %.1f)">%s</g>`, x, p.y-9, swatch)
		p.text(x+18, p.y, `fill="#555"`, text)
		x += width
	}
	block := func(colour string) string {
		return `<rect width="14" height="10" fill="` + colour + `"/>`
	}
	stroke := func(colour string) string {
		return `<path d="M0 5h14" stroke="` + colour + `" stroke-width="2"/>`
	}
	item(block(writeInk().area), "writes, median to slowest")
	item(stroke(writeInk().line), "their median")
	if p.r.Reads.Readers > 0 {
		item(block(readInk().area), "reads, median to slowest")
		item(stroke(readInk().line), "their median")
	}
	if p.r.Reads.Behind > 0 {
		item(stroke(behindInk), "reads, how far behind")
	}
	item(block(rateInk), "acknowledged per second")
	if p.r.ServerGap >= shadedFrom {
		item(block(gapInk), "no server accepted a write")
	}
	for v := range verdicts {
		has := func(b bin) bool { return len(b.bad[v]) > 0 }
		if slices.ContainsFunc(writes, has) || slices.ContainsFunc(reads, has) {
			name, colour, meaning := v.look()
			item(`<circle cx="7" cy="5" r="4" fill="`+colour+`"/>`, name+": "+meaning)
		}
	}
	p.y += 10
}

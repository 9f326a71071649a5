package ledger

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// element is what a test looks at in a picture.
type element struct {
	name, text string
	attr       map[string]string
}

// drawn parses the picture of a report.
func drawn(t *testing.T, r Report) []element {
	t.Helper()
	var b bytes.Buffer
	if err := r.WriteSVG(&b); err != nil {
		t.Fatal(err)
	}
	if dir := os.Getenv("LEDGER_PICTURES"); dir != "" { // to look at them
		name := strings.ReplaceAll(t.Name(), "/", "_") + ".svg"
		if err := os.WriteFile(filepath.Join(dir, name), b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if strings.Contains(b.String(), "NaN") || strings.Contains(b.String(), "Inf") || strings.Contains(b.String(), "%!") {
		t.Errorf("a number is missing in the picture")
	}
	var all []element
	for d := xml.NewDecoder(bytes.NewReader(b.Bytes())); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("the picture is not well-formed: %v", err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			e := element{name: token.Name.Local, attr: map[string]string{}}
			if e.name == "script" || e.name == "image" || e.name == "style" {
				t.Errorf("there is a %s in the picture", e.name)
			}
			for _, a := range token.Attr {
				if a.Name.Local == "href" || strings.HasPrefix(a.Name.Local, "on") {
					t.Errorf("there is a %s in the picture", a.Name.Local)
				}
				e.attr[a.Name.Local] = a.Value
			}
			all = append(all, e)
		case xml.CharData:
			if n := len(all); n > 0 {
				all[n-1].text += strings.TrimSpace(string(token))
			}
		}
	}
	if len(all) == 0 || all[0].name != "svg" {
		t.Fatal("that is no picture")
	}
	height := number(t, all[0], "height")
	for _, e := range all {
		if e.name == "text" {
			if y := number(t, e, "y"); y > height {
				t.Errorf("%q is below the picture", e.text)
			}
		}
	}
	return all
}

func number(t *testing.T, e element, attr string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(e.attr[attr], 64)
	if err != nil {
		t.Fatalf("%s of %+v: %v", attr, e, err)
	}
	return v
}

// texts returns the positions of a text.
func texts(all []element, text string) (found []element) {
	for _, e := range all {
		if e.name == "text" && e.text == text {
			found = append(found, e)
		}
	}
	return found
}

func dots(all []element, v verdict) int {
	_, colour, _ := v.look()
	n := 0
	for _, e := range all {
		if e.name == "circle" && e.attr["fill"] == colour && e.attr["cx"] != "7" { // not the legend's
			n++
		}
	}
	return n
}

func TestPictureOfABreak(t *testing.T) {
	h := scripted()
	r := newReport(h, "t", 1, []mark{
		{at: h.base.Add(98 * ms), name: `break <"&'> ` + "\x00\xff"},
		{at: h.base.Add(300 * ms), name: "noted", note: true},
	})
	all := drawn(t, r)
	if len(texts(all, "whole run")) != 1 {
		t.Error("the picture has no title")
	}
	for _, text := range []string{`break <"&'> ` + "\uFFFD\uFFFD", "noted", "failed 2", "unknown 2"} {
		if len(texts(all, text)) != 1 {
			t.Errorf("%q is there %d times", text, len(texts(all, text)))
		}
	}
	if dots(all, badUnknown) == 0 || dots(all, badFailed) == 0 || dots(all, badLost) != 0 || dots(all, badStale) != 0 {
		t.Errorf("%d unknown, %d failed, %d lost", dots(all, badUnknown), dots(all, badFailed), dots(all, badLost))
	}
	shaded := 0
	for _, e := range all {
		if e.name == "rect" && e.attr["fill"] == gapInk && e.attr["x"] != "" {
			shaded++
			// From 95 ms to 350 ms out of 600.
			x, w := number(t, e, "x"), number(t, e, "width")
			whole := pictureRight - pictureLeft
			if from, to := (x-pictureLeft)/whole, (x+w-pictureLeft)/whole; from < 0.15 || from > 0.17 || to < 0.57 || to > 0.59 {
				t.Errorf("the gap is drawn from %.2f to %.2f", from, to)
			}
		}
	}
	if shaded != 1 {
		t.Errorf("%d gaps are drawn", shaded)
	}

	// A part alone: with what belongs to it.
	all = drawn(t, r.Window(h.base.Add(450*ms), h.base.Add(600*ms)))
	if len(texts(all, "noted")) != 0 || dots(all, badUnknown) != 0 {
		t.Error("the part shows what is not in it")
	}
}

func TestPictureOfEverything(t *testing.T) {
	h := moved()
	h.readers = []track{{every: 10 * ms, reads: true}}
	for i := range 30 {
		at := time.Duration(i) * 10 * ms
		rec := record{done(at, at+2*ms, 1), view{newest: 0}} // stale from 100 ms on
		switch i {
		case 3, 4:
			rec = record{attempt: attempt{start: at, end: at + ms, outcome: failed, kind: h.readers[0].kind("57P01", errRolledBack)}}
		case 5, 6, 7:
			rec.view = view{newest: -1, standby: true}
		}
		h.readers[0].add(rec)
	}
	h.writers[0].attempts[0].present = false // lost
	h.writers[1].attempts[3].present = true  // surplus
	h.moves = h.firstAnswers()
	r := newReport(h, "t", 1, []mark{{at: h.base.Add(90 * ms), name: "switchover"}})
	all := drawn(t, r)
	for _, text := range []string{"timeline 2", "switchover", "lost 1", "surplus 1", "unknown 1", fmt.Sprintf("stale %d", r.Stale), fmt.Sprintf("stale %d", r.Reads.Stale), "failed 2"} {
		if len(texts(all, text)) != 1 {
			t.Errorf("%q is there %d times", text, len(texts(all, text)))
		}
	}
	if r.Stale == r.Reads.Stale || len(texts(all, "timeline 1")) != 0 {
		t.Error("the test does not tell writes from reads, or nobody's move is drawn")
	}
	if len(texts(all, "reads, how far behind")) != 1 {
		t.Error("the legend does not explain the lag")
	}
}

// However many names there are, none is written over another.
func TestPictureOfManyNames(t *testing.T) {
	h := scripted()
	var marks []mark
	for i := range 60 {
		at := h.base.Add(time.Duration(i*i%600) * ms)
		marks = append(marks, mark{at: at, name: fmt.Sprintf("%s number %d", strings.Repeat("event", i%5), i), note: i%3 > 0})
	}
	r := newReport(h, "t", 1, marks)
	drawn(t, r)
	p := &picture{r: r, scale: newScale(r, 100)}
	labels := p.labels()
	if len(labels) != len(marks) {
		t.Fatalf("%d labels of %d marks", len(labels), len(marks))
	}
	rows := place(labels, pictureRight)
	named := 0
	for i, a := range labels {
		if a.row < 0 {
			continue
		}
		named++
		if a.row >= rows || a.from < 0 || a.to > pictureRight {
			t.Errorf("%+v is outside", a)
		}
		for _, b := range labels[:i] {
			if a.row == b.row && a.from < b.to && b.from < a.to {
				t.Errorf("%+v and %+v overlap", a, b)
			}
			// The line of the later one does not cross the earlier one's text.
			if b.row > a.row && b.from <= a.x && a.x < b.to {
				t.Errorf("the line of %+v crosses %+v", a, b)
			}
		}
	}
	if rows != labelRows || named < labelRows {
		t.Errorf("%d names in %d rows", named, rows)
	}
}

func TestPlaceFew(t *testing.T) {
	labels := []label{{x: 500, text: "c"}, {x: 10, text: "a"}, {x: 12, text: "b"}, {x: 1180, text: "at the right edge"}}
	if rows := place(labels, pictureRight); rows != 2 {
		t.Errorf("%d rows, want 2", rows)
	}
	for i, want := range []int{0, 1, 0, 0} {
		if labels[i].row != want {
			t.Errorf("%q is in row %d, want %d", labels[i].text, labels[i].row, want)
		}
	}
	if l := labels[3]; l.to > pictureRight || l.from >= l.x {
		t.Errorf("%+v does not end at the edge", l)
	}
	if got := cut("äöüäöü", 4); got != "äöü…" {
		t.Errorf("cut = %q", got)
	}
}

// A run of next to nothing has a picture too.
func TestPictureOfLittle(t *testing.T) {
	h := &history{base: time.Now(), stopped: 5 * ms, measured: true, writers: make([]track, 2)}
	drawn(t, newReport(h, "t", 1, nil))
	h.writers[0] = track{every: ms, attempts: []attempt{{start: 0, end: 1, outcome: failed}}, failures: []failure{{"57P01", "e"}}}
	r := newReport(h, "t", 1, nil)
	drawn(t, r)
	drawn(t, r.Window(r.From, r.From.Add(1)))
}

func TestPictureRefused(t *testing.T) {
	h := scripted()
	r := newReport(h, "t", 1, nil)
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var read Report
	if err := json.Unmarshal(b, &read); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		r    Report
		want string
	}{
		{read, "JSON"},
		{r.Window(r.From, r.From), "nothing to draw"},
		{r.Window(r.To.Add(time.Hour), r.To.Add(2*time.Hour)), "nothing to draw"},
	} {
		if err := c.r.WriteSVG(io.Discard); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want an error about %q", err, c.want)
		}
	}
	if err := r.WriteSVG(brokenWriter{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("%v, want the writer's error", err)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestNice(t *testing.T) {
	for _, c := range []struct{ v, want float64 }{
		{1, 1}, {1.01, 2}, {2, 2}, {3, 5}, {5, 5}, {7, 10}, {1050, 2000}, {0.03, 0.05},
	} {
		if got := nice(c.v); got/c.want < 0.999 || got/c.want > 1.001 {
			t.Errorf("nice(%v) = %v, want %v", c.v, got, c.want)
		}
	}
	if got := nice(30 * ms); got != 50*ms {
		t.Errorf("nice(30ms) = %v", got)
	}
}

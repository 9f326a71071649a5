package ledger

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"strings"
)

// canvas writes SVG. Text is the only thing that comes from outside, and the
// only thing that is escaped.
type canvas struct{ bytes.Buffer }

func (c *canvas) add(format string, args ...any) { fmt.Fprintf(c, format+"\n", args...) }

// text writes at the baseline y; attributes are the further ones of the
// element.
func (c *canvas) text(x, y float64, attributes, s string) {
	c.add(`<text x="%.1f" y="%.1f" %s>%s</text>`, x, y, attributes, escaped(s))
}

func (c *canvas) rect(x, y, w, h float64, fill string) {
	c.add(`<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`, x, y, w, h, fill)
}

func (c *canvas) line(x1, y1, x2, y2 float64, attributes string) {
	c.add(`<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" %s/>`, x1, y1, x2, y2, attributes)
}

// path draws d, nothing if that is empty.
func (c *canvas) path(d *strings.Builder, attributes string) {
	if d.Len() > 0 {
		c.add(`<path d="%s" %s/>`, strings.TrimSpace(d.String()), attributes)
	}
}

func escaped(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a Buffer takes all
	return b.String()
}

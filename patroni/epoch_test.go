package patroni_test

import (
	"testing"

	"github.com/pgconvoy/pgconvoy/patroni"
)

func TestEpochCompare(t *testing.T) {
	old := patroni.Epoch{SystemID: "7", Timeline: 3, Created: 100}
	for _, c := range []struct {
		name        string
		e, old      patroni.Epoch
		elsewhere   patroni.Order
		sameAddress patroni.Order
	}{
		{"the first", old, patroni.Epoch{}, patroni.Newer, patroni.Newer},
		{"the same", old, old, patroni.Older, patroni.Same},
		{"acquired again", patroni.Epoch{SystemID: "7", Timeline: 3, Created: 101}, old, patroni.Newer, patroni.Same},
		{"a lower revision", patroni.Epoch{SystemID: "7", Timeline: 3, Created: 99}, old, patroni.Rebuilt, patroni.Same},
		{"a higher timeline", patroni.Epoch{SystemID: "7", Timeline: 4, Created: 101}, old, patroni.Newer, patroni.Newer},
		{"a higher timeline, a rebuilt store", patroni.Epoch{SystemID: "7", Timeline: 4, Created: 1}, old, patroni.Newer, patroni.Newer},
		{"a lower timeline", patroni.Epoch{SystemID: "7", Timeline: 2, Created: 101}, old, patroni.Older, patroni.Older},
		{"another database", patroni.Epoch{SystemID: "8", Timeline: 4, Created: 101}, old, patroni.Foreign, patroni.Foreign},
	} {
		if got := c.e.Compare(c.old, false); got != c.elsewhere {
			t.Errorf("%s, another address: %v, want %v", c.name, got, c.elsewhere)
		}
		if got := c.e.Compare(c.old, true); got != c.sameAddress {
			t.Errorf("%s, the same address: %v, want %v", c.name, got, c.sameAddress)
		}
	}
}

func TestEpochText(t *testing.T) {
	for _, c := range []struct {
		text string
		want patroni.Epoch
	}{
		{"", patroni.Epoch{}},
		{"7268616322854375442/3/1027", patroni.Epoch{SystemID: "7268616322854375442", Timeline: 3, Created: 1027}},
		{"18446744073709551615/4294967295/18446744073709551615", patroni.Epoch{SystemID: "18446744073709551615", Timeline: 1<<32 - 1, Created: 1<<64 - 1}},
	} {
		e, err := patroni.ParseEpoch(c.text)
		if err != nil || e != c.want || e.String() != c.text || e.IsZero() != (c.text == "") {
			t.Errorf("%q: %+v %q, %v", c.text, e, e.String(), err)
		}
	}
	for _, bad := range []string{"x", "1/2", "1/2/3/4", "/2/3", "1//3", "1/2/", "1/-2/3", "1/2/x", "1/4294967296/3", "1/2/18446744073709551616", " "} {
		if e, err := patroni.ParseEpoch(bad); err == nil || !e.IsZero() {
			t.Errorf("%q: %+v, %v", bad, e, err)
		}
	}
}

// FuzzParseEpoch: what was read is written such that it is read as the same.
func FuzzParseEpoch(f *testing.F) {
	for _, s := range []string{"", "7268616322854375442/3/1027", "1/2/3", "1/02/+3", "a b/1/1", "//", "1/4294967296/0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := patroni.ParseEpoch(s)
		if err != nil {
			return
		}
		again, err := patroni.ParseEpoch(e.String())
		if err != nil || again != e {
			t.Errorf("%q is %+v, written %q, read as %+v, %v", s, e, e.String(), again, err)
		}
		if o := e.Compare(e, true); !e.IsZero() && o != patroni.Same {
			t.Errorf("%+v is %v to itself", e, o)
		}
	})
}

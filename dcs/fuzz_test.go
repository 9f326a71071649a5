package dcs_test

import (
	"errors"
	"path"
	"strings"
	"testing"
	"unicode"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// FuzzCheckKey: what is accepted is exactly an absolute, clean path of printable text, and stays one below any directory
// that is one.
func FuzzCheckKey(f *testing.F) {
	for _, s := range []string{
		"", "/", "a", "/a", "/a/", "//a", "/a//b", "/a/./b", "/a/../b", "/a/...", "/a b/%2F?#&+=\"'", "/\u00fc/\u96c6", "/a\n", "/a\x7f", "/\u0085", "/\xff", "/\uFFFD",
		"/" + strings.Repeat("a", 511), "/" + strings.Repeat("a", 512),
	} {
		f.Add(s, "/service/demo")
	}
	f.Fuzz(func(t *testing.T, key, dir string) {
		err := dcs.CheckKey("field", key)
		control := func(r rune) bool {
			return unicode.IsControl(r) || unicode.Is(unicode.Co, r) || r >= 0xFFF0 // which includes utf8.RuneError
		}
		want := path.IsAbs(key) && path.Clean(key) == key && key != "/" && len(key) <= 512 && !strings.ContainsFunc(key, control)
		if (err == nil) != want {
			t.Errorf("%q: %v", key, err)
		}
		if err != nil {
			if !errors.Is(err, dcs.ErrInvalid) || !strings.Contains(err.Error(), "field") {
				t.Errorf("%q: %v", key, err)
			}
			return
		}
		if dcs.CheckKey("field", dir) == nil && len(dir)+len(key) <= 512 {
			if err := dcs.CheckKey("field", dir+key); err != nil {
				t.Errorf("%q below %q: %v", key, dir, err)
			}
			if !strings.HasPrefix(dir+key, dcs.Prefix(dir)) || strings.HasPrefix(dir, dcs.Prefix(dir)) {
				t.Errorf("%q is not below %q", dir+key, dir)
			}
		}
	})
}

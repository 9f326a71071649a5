package dcs_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/pgconvoy/pgconvoy/dcs"
)

func TestCheckKey(t *testing.T) {
	for _, good := range []string{"/a", "/service/demo", "/service/demo/0/leader", "/a/ü b", "/a/漢\uffef", "/...", "/" + strings.Repeat("x", 511)} {
		if err := dcs.CheckKey("key", good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "a", "/", "/a/", "//a", "/a//b", "/.", "/a/..", "/a\x00", "/a\x7f", "/a\u0085", "/a\ue000", "/a\ufff9", "/a/\U0001F600", "/a\xff", "/" + strings.Repeat("x", 512)} {
		err := dcs.CheckKey("the field", bad)
		if !errors.Is(err, dcs.ErrInvalid) || !strings.Contains(err.Error(), "the field") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestCheckValue(t *testing.T) {
	if err := dcs.CheckValue("/k", make([]byte, dcs.MaxValue)); err != nil {
		t.Error(err)
	}
	if err := dcs.CheckValue("/k", make([]byte, dcs.MaxValue+1)); !errors.Is(err, dcs.ErrInvalid) || !strings.Contains(err.Error(), "/k") {
		t.Error(err)
	}
}

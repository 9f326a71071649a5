package dcs

import (
	"fmt"
	"strings"
)

// MaxValue is the largest value that every store accepts, in bytes (Consul's limit).
const MaxValue = 512 << 10

// CheckKey refuses what is not an absolute, clean path: it starts with a slash, has no empty, "." or ".." element,
// no control character and at most 512 bytes. The error is ErrInvalid and names the field.
func CheckKey(field, key string) error {
	bad := func(why string) error { return fmt.Errorf("%w: %s %q %s", ErrInvalid, field, key, why) }
	switch {
	case key == "":
		return bad("is empty; give an absolute path such as /service/demo")
	case key[0] != '/':
		return bad("does not start with a slash")
	case len(key) > 512:
		return bad("is longer than 512 bytes")
	}
	for part := range strings.SplitSeq(key[1:], "/") {
		if part == "" || part == "." || part == ".." {
			return bad("has an empty, \".\" or \"..\" element")
		}
	}
	if strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' }) {
		return bad("has a control or invalid character")
	}
	return nil
}

// CheckValue refuses a value that some store would not take.
func CheckValue(key string, value []byte) error {
	if len(value) > MaxValue {
		return fmt.Errorf("%w: value of %s has %d bytes, more than %d", ErrInvalid, key, len(value), MaxValue)
	}
	return nil
}

// Prefix is what every key below dir begins with.
func Prefix(dir string) string { return strings.TrimSuffix(dir, "/") + "/" }

package dcs

import (
	"fmt"
	"strings"
)

// MaxValue is the largest value that every store accepts, in bytes (Consul's limit).
const MaxValue = 512 << 10

// CheckKey refuses what some store would not take: a key is an absolute, clean path. It starts with a slash, has no
// empty, "." or ".." element and at most 512 bytes; its characters are those of Unicode's first plane, without control
// characters, private ones and specials (ZooKeeper's rule). The error is ErrInvalid and names the field.
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
	if strings.ContainsFunc(key, refused) {
		return bad("has a control, private or invalid character, or one beyond U+FFEF")
	}
	return nil
}

// refused also catches what is not UTF-8, which is read as U+FFFD.
func refused(r rune) bool {
	return r < ' ' || r >= 0x7f && r <= 0x9f || r >= 0xe000 && r <= 0xf8ff || r >= 0xfff0
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

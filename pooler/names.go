package pooler

import (
	"fmt"
	"strings"
)

// checkName accepts what every PgBouncer reads as the name of an entry and what its console can be told: letters,
// digits and _ . - in at most 63 bytes, or "*" alone.
func checkName(name string) error {
	switch {
	case name == "*":
		return nil
	case name == "":
		return fmt.Errorf("%w: an empty name", ErrInvalid)
	case len(name) > maxArgument:
		return fmt.Errorf("%w: the name %q is longer than %d bytes", ErrInvalid, name, maxArgument)
	case strings.ContainsFunc(name, func(r rune) bool { return r >= 0x80 || r == '*' || !isKeyChar(byte(r)) }):
		return fmt.Errorf("%w: the name %q has a character other than letters, digits and _ . -", ErrInvalid, name)
	}
	return nil
}

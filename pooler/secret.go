package pooler

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/pgconvoy/pgconvoy/internal/mutant"
)

// Secret is a text that no formatting verb, JSON encoder or logger shows. Convert with string(s) where it is needed.
type Secret string

const masked = "***"

// String returns a mask.
func (Secret) String() string { return masked }

// Format writes a mask for every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(masked)) }

// MarshalText returns a mask, for JSON and other encoders.
func (Secret) MarshalText() ([]byte, error) { return []byte(masked), nil }

// LogValue returns a mask.
func (Secret) LogValue() slog.Value { return slog.StringValue(masked) }

// Params are the settings of a configuration section or the key=value pairs of an entry. Formatting masks the values
// of keys that hold secrets.
type Params map[string]string

// secretKey says whether the value of a key is hidden when printed.
func secretKey(key string) bool {
	return strings.Contains(key, "password") || strings.Contains(key, "secret") || strings.HasPrefix(key, "auth_ldap")
}

// String lists the pairs in the order of their keys.
func (p Params) String() string {
	parts := make([]string, 0, len(p))
	for _, k := range slices.Sorted(maps.Keys(p)) {
		v := p[k]
		if secretKey(k) && !mutant.Is("law11-pooler-secrets-are-masked") {
			v = masked
		}
		parts = append(parts, k+"="+v)
	}
	return "{" + strings.Join(parts, " ") + "}"
}

// Format writes String for every verb.
func (p Params) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(p.String())) }

// LogValue is String.
func (p Params) LogValue() slog.Value { return slog.StringValue(p.String()) }

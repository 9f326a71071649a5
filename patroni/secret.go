package patroni

import (
	"fmt"
	"io"

	"github.com/pgconvoy/pgconvoy/internal/mutant"
)

// Secret is a text that shows itself nowhere but in the file that it is meant for. JSON and YAML are such files, so do
// not log as JSON what holds one.
type Secret string

// String is the same for every secret.
func (s Secret) String() string {
	if s == "" || mutant.Is("law11-secret-shown") {
		return string(s)
	}
	return "***"
}

// Format keeps the secret out of every verb.
func (s Secret) Format(f fmt.State, verb rune) {
	text := s.String()
	if verb == 'q' || f.Flag('#') {
		text = `"` + text + `"`
	}
	_, _ = io.WriteString(f, text) // a Formatter has nobody to tell
}

// A pointer inside a structure that is printed with a verb for texts is printed without asking its parts, so whatever
// holds a secret prints itself: as with %v, always.

// Format implements [fmt.Formatter].
func (c Client) Format(f fmt.State, _ rune) { type plain Client; show(f, plain(c)) }

// Format implements [fmt.Formatter].
func (c Credentials) Format(f fmt.State, _ rune) { type plain Credentials; show(f, plain(c)) }

// Format implements [fmt.Formatter].
func (c Etcd3Config) Format(f fmt.State, _ rune) { type plain Etcd3Config; show(f, plain(c)) }

// Format implements [fmt.Formatter].
func (c ConsulConfig) Format(f fmt.State, _ rune) { type plain ConsulConfig; show(f, plain(c)) }

// Format implements [fmt.Formatter].
func (c ZooKeeperConfig) Format(f fmt.State, _ rune) { type plain ZooKeeperConfig; show(f, plain(c)) }

// Format implements [fmt.Formatter].
func (c RESTConfig) Format(f fmt.State, _ rune) { type plain RESTConfig; show(f, plain(c)) }

// Format implements [fmt.Formatter].
func (a Authentication) Format(f fmt.State, _ rune) { type plain Authentication; show(f, plain(a)) }

// Format implements [fmt.Formatter].
func (c PostgresConfig) Format(f fmt.State, _ rune) { type plain PostgresConfig; show(f, plain(c)) }

// Format implements [fmt.Formatter].
func (c NodeConfig) Format(f fmt.State, _ rune) { type plain NodeConfig; show(f, plain(c)) }

func show(f fmt.State, v any) {
	_, _ = fmt.Fprintf(f, fmt.FormatString(f, 'v'), v) // likewise
}

package laws

import (
	"fmt"
	"strings"
)

// document is docs/laws.md. places are the files that ask for each guard.
func document(places map[string][]string) string {
	var b strings.Builder
	b.WriteString("# The laws\n\nGenerated from the table in internal/laws (`go test ./internal/laws -run TestDocument -update`).\n\n" + preamble)
	for _, law := range Table {
		fmt.Fprintf(&b, "\n## %d. %s\n\n%s\n\nWithout it: %s\n", law.Number, law.Title, law.Text, law.Without)
		if len(law.Guards) > 0 {
			b.WriteString("\n| switch | what its guard does | where | tests that fail without it |\n|---|---|---|---|\n")
		}
		for _, g := range law.Guards {
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", g.Name, g.Does, strings.Join(places[g.Name], ", "), list(g.Tests))
		}
		if len(law.Tests) > 0 {
			fmt.Fprintf(&b, "\nFurther tests: %s.\n", list(law.Tests))
		}
	}
	return b.String()
}

const preamble = `What holds in every stack whatever fails, and how it is known. A guard is a piece of code that keeps a law. In programs that
are built with the tag pgconvoy_mutants, and only there, the environment variable PGCONVOY_MUTANT names a guard that is off.
` + "`go test ./internal/laws`" + ` switches each of them off, one at a time, and sees the tests beside it fail. To see one:

    PGCONVOY_MUTANT=law6-all-or-none go test -tags pgconvoy_mutants ./topology -run TestOnePoolerDoesNotDrain

Further tests are of what cannot be switched off, or run on real servers: those of TestMatrix on a whole stack under load,
which takes the switches too:

    PGCONVOY_MUTANT=law2-elected-is-writable go test -tags pgconvoy_mutants ./topology/topologytest -run 'TestMatrix/etcd/the key.s holder never gets writable'
`

// list names tests, those of one package together.
func list(tests []Test) string {
	var b strings.Builder
	for i, test := range tests {
		switch {
		case i > 0 && tests[i-1].Package == test.Package:
			b.WriteString(", ")
		case i > 0:
			fmt.Fprintf(&b, "; %s: ", test.Package)
		default:
			fmt.Fprintf(&b, "%s: ", test.Package)
		}
		b.WriteString("`" + test.Name + "`")
	}
	return b.String()
}

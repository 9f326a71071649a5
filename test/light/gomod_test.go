package light_test

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// TestGoLine: a module that requires this one gets along with the oldest Go that is supported. The go command refuses a
// line that is older than that of any module that it requires, so these lines are true wherever the tests run.
func TestGoLine(t *testing.T) {
	for _, file := range []string{"../../go.mod", "../consumer/go.mod", "go.mod"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Split(string(b), "\n")
		if !slices.Contains(text, "go 1.26.0") {
			t.Errorf(`%s has no line "go 1.26.0": a dependency lifts all users to a newer Go; take an older one`, file)
		}
		if slices.ContainsFunc(text, func(line string) bool { return strings.HasPrefix(line, "toolchain ") }) {
			t.Errorf("%s has a toolchain line", file)
		}
	}
}

//go:build !pgconvoy_mutants

package mutant_test

import (
	"testing"

	"github.com/pgconvoy/pgconvoy/internal/mutant"
)

// In an ordinary build no guard can be switched off, whatever the environment says.
func TestOff(t *testing.T) {
	t.Setenv("PGCONVOY_MUTANT", "a-guard")
	if mutant.Is("a-guard") || mutant.Is("") {
		t.Error("a guard is off")
	}
}

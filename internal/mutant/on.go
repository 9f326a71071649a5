//go:build pgconvoy_mutants

package mutant

import "os"

// Is reports whether the guard of this name is off. It asks at each call: the go command then knows that a test's
// outcome depends on it.
func Is(name string) bool { return name == os.Getenv("PGCONVOY_MUTANT") }

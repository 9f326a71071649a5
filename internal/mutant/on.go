//go:build pgconvoy_mutants

package mutant

import "os"

var off = os.Getenv("PGCONVOY_MUTANT")

// Is reports whether the guard of this name is off.
func Is(name string) bool { return name == off }

//go:build !pgconvoy_mutants

package mutant

// Is reports whether the guard of this name is off: never.
func Is(string) bool { return false }

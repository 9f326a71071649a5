// Package mutant breaks guards on purpose, so that a test can show that it would notice.
//
// A guard that keeps a law asks Is with its own name. In every ordinary build that is false, known when the program is
// compiled, and costs nothing. Built with the tag pgconvoy_mutants, the guard that $PGCONVOY_MUTANT names is off.
package mutant

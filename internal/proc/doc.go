// Package proc runs the programs of a local stack so that none outlives its owner: each is told to end when the
// owner's process dies (PDEATHSIG), is started from one thread that lives as long as the owner does, and is waited for.
//
// A [Keeper] keeps one program running, and can end all of it at once, hold it down, and stop it where it is.
//
// It works on Linux.
package proc

//go:build !linux

package proc

import "syscall"

// Elsewhere this package compiles, so that what imports it does; package local refuses to run.
func attributes(Command, syscall.Signal) *syscall.SysProcAttr { return nil }

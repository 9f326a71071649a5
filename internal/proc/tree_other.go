//go:build !linux

package proc

import (
	"errors"
	"time"
)

const settle = time.Duration(0)

type process struct{ pid int }

// Tree knows no process elsewhere than on Linux.
func Tree(int) []int { return nil }

// Freeze does nothing elsewhere than on Linux.
func Freeze(int) (thaw func()) { return func() {} }

// FreezeOne works on Linux only.
func FreezeOne(int) (thaw func(), err error) { return nil, errors.ErrUnsupported }

func descent(...int) []process                { return nil }
func halt(all []process) ([]process, error)   { return all, nil }
func resume([]process)                        {}
func kill([]process)                          {}
func present(all []process) []process         { return all }
func buried[T any]([]process, <-chan T) error { return nil }

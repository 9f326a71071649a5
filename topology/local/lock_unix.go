//go:build unix

package local

import (
	"errors"
	"os"
	"syscall"
)

// lock holds a file against a second stack in the same folder. It goes with this process.
func lock(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close()
		return nil, errors.New("another stack is running in it; stop that one, or give another folder")
	}
	return func() { _ = file.Close() }, nil
}

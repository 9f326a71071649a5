//go:build unix

package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// keepOwner gives the new file the owner of the old one. An unprivileged process may only keep its own files.
func keepOwner(f *os.File, old fs.FileInfo) error {
	st, ok := old.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	if os.Geteuid() != 0 {
		if int(st.Gid) != os.Getegid() {
			_ = f.Chown(-1, int(st.Gid)) // possible when we are in that group; otherwise ours stays
		}
		return nil
	}
	return f.Chown(int(st.Uid), int(st.Gid))
}

// syncDir makes the rename last through a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// lockDir takes the advisory lock of the directory itself, so that no lock file is left behind. The kernel drops it
// when the process ends. Where the file system has no locks, it goes without.
func lockDir(dir string, wait time.Duration) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(wait); ; time.Sleep(time.Millisecond) {
		err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return func() { _ = d.Close() }, nil
		case !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR):
			// A file system without locks: better to write without one than not at all.
			return func() { _ = d.Close() }, nil
		case time.Now().After(end):
			_ = d.Close()
			return nil, err
		}
	}
}

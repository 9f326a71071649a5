// Package atomicfile replaces small files so that a reader sees the old content or the new one, never a part,
// and a crash leaves one of the two.
package atomicfile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/mutant"
)

// lockWait bounds how long Update waits for another process that is updating a file of the same directory.
const lockWait = 2 * time.Second

// Write replaces the file at path by data: a temporary file in the same directory, fsync, rename, fsync of the
// directory. A file that exists keeps its mode, and its owner where the process may give it (root); a new one gets
// perm. A symbolic link is followed, so that the file it names is replaced and the link stays. After an error the
// old content is in place, except when only the last fsync of the directory failed.
func Write(path string, data []byte, perm fs.FileMode) error {
	path, err := resolve(path)
	if err != nil {
		return err
	}
	if err := replace(path, data, perm, true); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// replace is Write without the last fsync, and without sync without the first one too.
func replace(path string, data []byte, perm fs.FileMode, sync bool) (err error) {
	old, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		old = nil
	case err != nil:
		return err
	case !old.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", path)
	}
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*.tmp") // 0600 until the mode is known
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = tmp.Close()
			_ = os.Remove(tmp.Name())
		}
	}()
	if old != nil {
		perm = old.Mode().Perm()
		if err := keepOwner(tmp, old); err != nil {
			return fmt.Errorf("keep the owner of %s: %w", path, err)
		}
	}
	if mutant.Is("law11-files-are-private") {
		perm |= 0o044
	}
	if err := tmp.Chmod(perm); err != nil {
		return err
	}
	if _, err := tmp.Write(data); err != nil {
		return err
	}
	if sync {
		if err := tmp.Sync(); err != nil {
			return err
		}
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// Update reads the file at path, passes the content to change and writes what it returns as Write does, all under a
// lock on the directory that other Updates honour, in this process and in others. Equal content is not written. An
// error of change is returned as it is and nothing is written.
//
// The fsync of the directory is left to settle, for a caller who is in a hurry: until it was called, a power cut may
// bring back the old content, whole. It is never nil; call it once, after an error too.
//
// Without sync nothing is fsynced: after a power cut the file may be anything. Readers still see one of the two.
func Update(path string, sync bool, change func(old []byte) ([]byte, error)) (settle func() error, err error) {
	settle = func() error { return nil }
	path, err = resolve(path)
	if err != nil {
		return settle, err
	}
	dir := filepath.Dir(path)
	unlock, err := lockDir(dir, lockWait)
	if err != nil {
		return settle, fmt.Errorf("lock the directory of %s: %w", path, err)
	}
	defer unlock()
	old, err := os.ReadFile(path)
	if err != nil {
		return settle, err
	}
	data, err := change(old)
	if err != nil || bytes.Equal(old, data) {
		return settle, err
	}
	if err := replace(path, data, 0o600, sync); err != nil || !sync {
		return settle, err
	}
	return func() error { return syncDir(dir) }, nil
}

// resolve follows symbolic links to the file that is meant, which need not exist yet.
func resolve(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, lerr := os.Lstat(path); lerr == nil {
			return "", fmt.Errorf("%s is a symbolic link to a file that does not exist", path)
		}
		return path, nil
	}
	return real, err
}

package storetest

import (
	"os"
	"path/filepath"
	"testing"
)

// Backup stops all servers, copies their data and starts them again. restore does so with the copy: what was written
// meanwhile never was.
func (s *Servers) Backup(t testing.TB) (restore func()) {
	t.Helper()
	dir := t.TempDir()
	copied := func(i int) string { return filepath.Join(dir, s.servers[i].name()) }
	s.restart(t, func(i int) error { return copyFolder(copied(i), s.servers[i].data()) })
	return func() {
		t.Helper()
		s.restart(t, func(i int) error {
			if err := os.RemoveAll(s.servers[i].data()); err != nil {
				return err
			}
			return copyFolder(s.servers[i].data(), copied(i))
		})
	}
}

func copyFolder(to, from string) error {
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return err
	}
	return os.Chmod(to, 0o700)
}

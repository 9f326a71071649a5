//go:build unix

package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func TestWriteMakesAPrivateFileAndKeepsTheModeOfAnOldOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, "one")
	check(t, path, "one", 0o600)
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	write(t, path, "two")
	check(t, path, "two", 0o640)
	onlyFile(t, path)
}

func TestWriteKeepsTheOwnerWhenItMay(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may give a file away")
	}
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, "one")
	if err := os.Chown(path, 12345, 54321); err != nil {
		t.Fatal(err)
	}
	write(t, path, "two")
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if owner := st.Sys().(*syscall.Stat_t); owner.Uid != 12345 || owner.Gid != 54321 {
		t.Errorf("the owner became %d:%d", owner.Uid, owner.Gid)
	}
}

func TestWriteFollowsALink(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "f"), filepath.Join(dir, "link")
	write(t, path, "one")
	if err := os.Symlink("f", link); err != nil {
		t.Fatal(err)
	}
	write(t, link, "two")
	check(t, path, "two", 0o600)
	if st, err := os.Lstat(link); err != nil || st.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := Write(link, nil, 0o600); err == nil {
		t.Error("a dangling link was written through")
	}
}

func TestWriteThatFailsLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	if err := Write(filepath.Join(dir, "none", "f"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a directory: %v", err)
	}
	if err := Write(dir, []byte("x"), 0o600); err == nil {
		t.Error("a directory was replaced")
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestUpdate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, "one")
	boom := errors.New("boom")
	if _, err := Update(path, true, func([]byte) ([]byte, error) { return []byte("two"), boom }); !errors.Is(err, boom) {
		t.Errorf("a change that fails: %v", err)
	}
	check(t, path, "one", 0o600)
	before, _ := os.Stat(path)
	if _, err := Update(path, true, func(old []byte) ([]byte, error) { return old, nil }); err != nil {
		t.Errorf("no change: %v", err)
	}
	if after, _ := os.Stat(path); !os.SameFile(before, after) {
		t.Error("an equal file was written")
	}
	settle, err := Update(path, true, func([]byte) ([]byte, error) { return []byte("two"), nil })
	if err != nil || settle() != nil {
		t.Errorf("a change: %v", err)
	}
	check(t, path, "two", 0o600)
	onlyFile(t, path)
	settle, err = Update(path, false, func([]byte) ([]byte, error) { return []byte("three"), nil })
	if err != nil || settle() != nil {
		t.Errorf("a change without sync: %v", err)
	}
	check(t, path, "three", 0o600)
	onlyFile(t, path)
	if _, err := Update(path+"x", true, func([]byte) ([]byte, error) { return nil, nil }); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// Many read-modify-writes at a time lose none, and a reader never sees a part.
func TestUpdatesDoNotLoseEachOther(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, "")
	stop, reader := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				reader <- nil
				return
			default:
			}
			text, err := os.ReadFile(path)
			if err != nil || strings.Trim(string(text), "x") != "" {
				reader <- fmt.Errorf("read %q, %w", text, err)
				return
			}
		}
	}()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 5 {
				if _, err := Update(path, true, func(old []byte) ([]byte, error) { return append(old, 'x'), nil }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	close(stop)
	if err := <-reader; err != nil {
		t.Error(err)
	}
	check(t, path, strings.Repeat("x", 40), 0o600)
	onlyFile(t, path)
}

func BenchmarkWrite(b *testing.B) {
	path := filepath.Join(b.TempDir(), "f")
	data := []byte(strings.Repeat("x", 2000))
	for b.Loop() {
		if err := Write(path, data, 0o600); err != nil {
			b.Fatal(err)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := Write(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func check(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != text {
		t.Errorf("content %q, %v, want %q", got, err, text)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != mode {
		t.Errorf("mode %v, %v, want %v", st.Mode(), err, mode)
	}
}

func onlyFile(t *testing.T, path string) {
	t.Helper()
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("left beside the file: %v", entries)
	}
}

package local

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// segment is the piece of System V shared memory by which a PostgreSQL keeps others off its data.
type segment struct {
	known   bool
	key, id int
}

// segmentOf reads what the PostgreSQL of a data folder has, or had when it was killed; the zero one: none.
func segmentOf(dataDir string) segment {
	var s segment
	b, err := os.ReadFile(filepath.Join(dataDir, "postmaster.pid"))
	if err != nil {
		return s
	}
	if lines := strings.Split(string(b), "\n"); len(lines) > 6 {
		n, err := fmt.Sscan(lines[6], &s.key, &s.id)
		s.known = err == nil && n == 2
	}
	return s
}

// free gives a segment back that nobody uses. What is killed cannot do so itself, as a machine that loses its power
// does.
func (s segment) free() {
	var now unix.SysvShmDesc
	if !s.known {
		return
	}
	if _, err := unix.SysvShmCtl(s.id, unix.IPC_STAT, &now); err != nil || int(uint32(now.Perm.Key)) != s.key || now.Nattch > 0 {
		return // it is gone, or another's by now
	}
	_, _ = unix.SysvShmCtl(s.id, unix.IPC_RMID, nil) // looked at above
}

package local

import (
	"fmt"
	"path/filepath"
	"syscall"

	"github.com/pgconvoy/pgconvoy/internal/proc"
)

// minDisk is what a new cluster with its write-ahead log needs.
const minDisk = 256 << 20

// onDisk makes a node's program see a file system of its own at its data folder. It is mounted in a mount namespace,
// so nothing has to be unmounted: it goes with the last process.
func (s *Stack) onDisk(c proc.Command, dir string) proc.Command {
	if s.disk == 0 {
		return c
	}
	const script = `mkdir -p "$0" && mount -t tmpfs -o size=$1,uid=$2,gid=$3,mode=0700 pgconvoy "$0" || exit 1
uid=$2 gid=$3; shift 3
exec setpriv --reuid "$uid" --regid "$gid" --init-groups --pdeathsig TERM -- "$@"`
	args := []string{
		"--mount", "--propagation", "private", "sh", "-c", script,
		dir, fmt.Sprint(s.disk), fmt.Sprint(s.folder.user.UID), fmt.Sprint(s.folder.user.GID), c.Path,
	}
	c.Env = append(c.Env, "HOME="+s.folder.user.Home, "USER="+s.folder.user.Name, "LOGNAME="+s.folder.user.Name)
	c.Path, c.Args, c.User, c.Death = "unshare", append(args, c.Args...), nil, syscall.SIGTERM
	return c
}

// seen is a path of a process as this one sees it.
func (s *Stack) seen(pid int, path string) string {
	if s.disk == 0 {
		return path
	}
	return filepath.Join(fmt.Sprintf("/proc/%d/root", pid), path)
}

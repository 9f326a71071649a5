package proc

import "syscall"

// attributes puts the program into a group of its own: an interrupt typed at the terminal is for the owner, which
// stops its programs in order.
func attributes(c Command, death syscall.Signal) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: death}
	if c.User != nil {
		a.Credential = &syscall.Credential{Uid: c.User.UID, Gid: c.User.GID}
	}
	return a
}

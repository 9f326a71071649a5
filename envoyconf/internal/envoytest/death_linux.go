package envoytest

import "syscall"

// pdeathsig makes the child die with a test binary that is killed and cannot clean up.
func pdeathsig() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

package pooler_test

import "syscall"

// procAttr has the kernel end the child with us, also when the test binary is killed.
func procAttr(cred *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: cred, Pdeathsig: syscall.SIGKILL}
}

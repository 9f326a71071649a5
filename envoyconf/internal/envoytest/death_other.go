//go:build !linux

package envoytest

import "syscall"

func pdeathsig() *syscall.SysProcAttr { return nil }

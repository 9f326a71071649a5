// Package launcher holds the small program that starts Patroni.
package launcher

import _ "embed"

// Python is the program's text, for the interpreter of the environment that Patroni is installed in.
//
//go:embed launcher.py
var Python []byte

//go:build !unix

package atomicfile

import (
	"io/fs"
	"os"
	"time"
)

func keepOwner(*os.File, fs.FileInfo) error { return nil }

func syncDir(string) error { return nil }

func lockDir(string, time.Duration) (func(), error) { return func() {}, nil }

//go:build !unix

package local

import "errors"

func lock(string) (func(), error) { return nil, errors.ErrUnsupported }

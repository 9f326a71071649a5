//go:build !linux

package local

import "errors"

func freezeOne(int) (thaw func(), err error) { return nil, errors.ErrUnsupported }

package topologytest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/pgconvoy/pgconvoy/patroni"
)

// Files beside a node's data folder: while one is there, the node waits.
const (
	restoreWaits = "restore-waits"
	promoteWaits = "promote-waits"
)

// nodeFaults prepares a node for what waits on those files.
func nodeFaults(_ string, c *patroni.NodeConfig) error {
	wait := func(file string) string {
		return fmt.Sprintf("while test -e '%s'; do sleep 0.05; done", filepath.Join(filepath.Dir(c.Postgres.DataDir), file))
	}
	c.Postgres.RecoveryConf = map[string]string{"restore_command": wait(restoreWaits) + "; exit 1"} // there is no archive
	c.Postgres.PrePromote = fmt.Sprintf(`sh -c "%s"`, wait(promoteWaits))
	return nil
}

// HangRestore makes a node's restore_command hang: a replica that asks its archive waits, and so does its promotion.
func (s *Stack) HangRestore(node string) Undo {
	s.t.Helper()
	return s.waits(node, "restore_command hangs", restoreWaits)
}

// HangPromote makes a node's pre_promote script hang: it has the leader key and is not promoted.
func (s *Stack) HangPromote(node string) Undo {
	s.t.Helper()
	return s.waits(node, "pre_promote hangs", promoteWaits)
}

func (s *Stack) waits(node, what, file string) Undo {
	s.t.Helper()
	var path string
	return s.inject(node+": "+what, func(context.Context) error {
		if s.o.Direct {
			return errors.New("this stack has no such script: Options.Direct is set")
		}
		dir, err := s.r.DataDir(node)
		if err != nil {
			return err
		}
		path = filepath.Join(filepath.Dir(dir), file)
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o644)
		if errors.Is(err, os.ErrExist) {
			return errors.New("it does so already")
		}
		if err != nil {
			return err
		}
		return f.Close()
	}, func(context.Context) error { return removed(path) })
}

// removed removes a file that may have gone with its disk.
func removed(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// FillDisk leaves no byte free on a node's disk, which needs [Options.Disk] and thereby root: without root the test is
// skipped. The undo makes room again.
func (s *Stack) FillDisk(node string) Undo {
	s.t.Helper()
	var path string
	return s.inject("fill the disk of "+node, func(context.Context) error {
		if s.o.Disk == 0 {
			return errors.New("Options.Disk is not set: the node has no disk of its own")
		}
		dir, err := s.r.DataDir(node)
		if err != nil {
			return err
		}
		path = filepath.Join(dir, "pgconvoy-fills-the-disk")
		f, err := os.Create(path)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, zeros{})
		if err = errors.Join(err, f.Close()); !errors.Is(err, syscall.ENOSPC) {
			return &halfError{fmt.Errorf("the disk did not fill: %w", err)}
		}
		return nil
	}, func(context.Context) error { return removed(path) })
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/topology"
)

// Primary is the file's content.
type Primary struct {
	Member string         `json:"member"`
	Addr   netip.AddrPort `json:"addr"`
	Epoch  patroni.Epoch  `json:"epoch"`
}

// Controller keeps a file that names the primary.
type Controller struct {
	Leaders topology.LeaderSource
	File    string // it is made when there is something to say
}

// Run works until ctx ends and returns its cause; any other error is a leadership that a person must look at, or a file
// that cannot be read or written. The file stays.
func (c *Controller) Run(ctx context.Context) error {
	now, err := read(c.File)
	if err != nil {
		return err
	}
	for l, err := range c.Leaders.Watch(ctx) {
		if err != nil {
			return err
		}
		if l.Phase != patroni.Writable {
			continue // nobody better is known: who has the leader key may not be a primary yet
		}
		switch order := l.Epoch.Compare(now.Epoch, l.Addr == now.Addr); order {
		case patroni.Newer:
			now = Primary{l.Member, l.Addr, l.Epoch}
			if err := write(c.File, now); err != nil {
				return err
			}
		case patroni.Same, patroni.Older: // never go back, also after a restart: the file remembers
		default:
			return fmt.Errorf("%s leads with epoch %v, to %s in %s that is a %v: if it is right, remove the file",
				l.Member, l.Epoch, now.Epoch, c.File, order)
		}
	}
	return errors.New("the source of leaders has ended without a reason")
}

// read returns the zero Primary when there is no file.
func read(file string) (Primary, error) {
	var p Primary
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return p, err
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return p, fmt.Errorf("%s: %w", file, err)
	}
	return p, nil
}

// write replaces the file in one step, so that nobody reads half of it.
func write(file string, p Primary) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

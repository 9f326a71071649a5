package zookeeper

import (
	"context"
	"errors"
	"sync"

	"github.com/go-zookeeper/zk"
)

// kind is what is read of a node, and what a one-shot watch on it tells.
type kind int

const (
	data   kind = iota // the node was written or deleted
	names              // nodes directly below it were made or deleted, or it was itself
	absent             // the node was made
)

// spot is a node and what is read of it.
type spot struct {
	key  string
	kind kind
}

// arm is a one-shot watch. Its channel is closed when it has fired, which tells everybody who waits.
type arm struct{ fired <-chan zk.Event }

func (a *arm) spent() bool {
	select {
	case <-a.fired:
		return true
	default:
		return false
	}
}

// arms are the watches that the connection has armed and that have not fired. The client cannot take them back, so they
// are kept for the next one who wants them.
type arms struct {
	mu    sync.Mutex
	live  map[spot]*arm
	sweep int // spent ones are dropped when there are so many
}

// get returns one that has not fired; nil: none. What happens after it was got, fires it.
func (a *arms) get(at spot) *arm {
	a.mu.Lock()
	defer a.mu.Unlock()
	w := a.live[at]
	if w != nil && w.spent() {
		delete(a.live, at)
		w = nil
	}
	return w
}

// put adds a new one. Another one that two have armed at once fires together with it.
func (a *arms) put(at spot, fired <-chan zk.Event) *arm {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.live == nil {
		a.live = make(map[spot]*arm)
	}
	if len(a.live) >= a.sweep {
		for at, w := range a.live {
			if w.spent() {
				delete(a.live, at)
			}
		}
		a.sweep = max(1024, 2*len(a.live))
	}
	w := &arm{fired}
	a.live[at] = w
	return w
}

// drop forgets one that does not fire.
func (a *arms) drop(at spot, w *arm) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.live[at] == w {
		delete(a.live, at)
	}
}

// armed is a reading with what tells that it is not true any more.
type armed struct {
	reading
	arm *arm // nil: none
}

// readAndArm reads a spot. What happens to it afterwards fires the arm that comes with it: one that was armed before, or
// by the very request that reads. A root that is not there is armed for its making.
func (s *Store) readAndArm(ctx context.Context, at spot, root bool) (armed, error) {
	return call(ctx, s, func() (armed, error) { // which finishes also when nobody waits any more: the arm stays
		if at.kind == data {
			return s.readData(at)
		}
		for range 3 {
			made := s.arms.get(spot{at.key, absent})
			a, err := s.readNames(at)
			if err != nil || a.stat != nil || !root {
				return a, err
			}
			if made == nil {
				made, err = s.armAbsent(at.key)
			}
			if err != nil || made != nil {
				return armed{arm: made}, err
			}
		}
		return armed{}, errors.New("it comes and goes")
	})
}

func (s *Store) readData(at spot) (a armed, err error) {
	var fired <-chan zk.Event
	if a.arm = s.arms.get(at); a.arm != nil {
		a.data, a.stat, err = s.conn.Get(s.Root + at.key)
	} else {
		a.data, a.stat, fired, err = s.conn.GetW(s.Root + at.key)
	}
	return s.armed(at, a, fired, err)
}

func (s *Store) readNames(at spot) (a armed, err error) {
	var fired <-chan zk.Event
	if a.arm = s.arms.get(at); a.arm != nil {
		a.names, a.stat, err = s.conn.Children(s.Root + at.key)
	} else {
		a.names, a.stat, fired, err = s.conn.ChildrenW(s.Root + at.key)
	}
	return s.armed(at, a, fired, err)
}

// armed adds what a reading has armed. A node that is not there is no error.
func (s *Store) armed(at spot, a armed, fired <-chan zk.Event, err error) (armed, error) {
	switch {
	case errors.Is(err, zk.ErrNoNode):
		return armed{}, nil
	case err != nil:
		return armed{}, err
	case fired != nil:
		a.arm = s.arms.put(at, fired)
	}
	return a, nil
}

// armAbsent arms for the making of a node; nil: it is there.
func (s *Store) armAbsent(key string) (*arm, error) {
	found, _, fired, err := s.conn.ExistsW(s.Root + key)
	switch {
	case err != nil:
		return nil, err
	case found: // then it is armed as a reading of its data is
		s.arms.put(spot{key, data}, fired)
		return nil, nil
	}
	return s.arms.put(spot{key, absent}, fired), nil
}

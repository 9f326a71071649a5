package topologytest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Undo takes a fault back. It may be called once or often; what goes wrong fails the test.
type Undo func()

// fault is one that is there.
type fault struct {
	name string
	once sync.Once
	undo func(ctx context.Context) error
	err  error
}

// inject does a fault, marks it in the ledgers, and remembers its undo.
func (s *Stack) inject(name string, do func(ctx context.Context) error, undo func(ctx context.Context) error) Undo {
	s.t.Helper()
	if err := s.ctx.Err(); err != nil {
		s.t.Fatalf("topologytest: %s: the stack failed: %v", name, context.Cause(s.ctx))
	}
	s.mark(name)
	ctx, cancel := context.WithTimeout(s.t.Context(), s.o.limit())
	defer cancel()
	err := do(ctx)
	if undo == nil {
		if err != nil {
			s.t.Fatalf("topologytest: %s: %v", name, err)
		}
		return func() {}
	}
	f := &fault{name: name, undo: undo}
	if err != nil {
		if _, ok := errors.AsType[*halfError](err); ok { // begun, so there is something to undo
			s.remember(f)
		}
		s.t.Fatalf("topologytest: %s: %v", name, err)
	}
	s.remember(f)
	return func() {
		s.t.Helper()
		if err := s.take(f); err != nil {
			s.t.Errorf("topologytest: undoing %s: %v", name, err)
		}
	}
}

// halfError is that of a fault that was begun.
type halfError struct{ error }

func (e *halfError) Unwrap() error { return e.error }

func (u *running) remember(f *fault) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.faults = append(u.faults, f)
}

// take undoes a fault, once.
func (u *running) take(f *fault) error {
	f.once.Do(func() {
		u.mu.Lock()
		u.faults = slices.DeleteFunc(u.faults, func(other *fault) bool { return other == f })
		u.mu.Unlock()
		if u.ctx.Err() != nil {
			return // nothing is left that could be undone
		}
		u.note("undone: " + f.name)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(u.ctx), u.o.limit())
		defer cancel()
		f.err = f.undo(ctx)
	})
	return f.err
}

// undoAll undoes what is left, the last fault first.
func (u *running) undoAll(t testing.TB) {
	t.Helper()
	for {
		u.mu.Lock()
		var f *fault
		if n := len(u.faults); n > 0 {
			f = u.faults[n-1]
		}
		u.mu.Unlock()
		if f == nil {
			return
		}
		if err := u.take(f); err != nil {
			t.Errorf("topologytest: undoing %s: %v", f.name, err)
		}
	}
}

// Kill ends a component with SIGKILL and returns when it is gone. A killed node loses all its processes in one moment;
// of a killed "n1/patroni" the PostgreSQL goes on. Nobody starts it again before the undo, with one exception: a
// PostgreSQL belongs to its Patroni, which sees to it.
func (s *Stack) Kill(component string) Undo {
	s.t.Helper()
	return s.down("kill", component, syscall.SIGKILL)
}

// Terminate asks a component to end with SIGTERM, and returns when it is gone. It stays down as with Kill. A PostgreSQL
// takes that as a smart shutdown, and is not waited for: it lets nobody in any more, and ends when the last has left.
func (s *Stack) Terminate(component string) Undo {
	s.t.Helper()
	return s.down("terminate", component, syscall.SIGTERM)
}

func (s *Stack) down(verb, component string, sig syscall.Signal) Undo {
	s.t.Helper()
	name := verb + " " + component
	if strings.HasSuffix(component, "/postgres") {
		return s.inject(name, func(ctx context.Context) error { return s.signal(ctx, component, sig) }, nil)
	}
	var heal func() error
	return s.inject(name, func(ctx context.Context) error {
		if err := s.r.Down(ctx, component, sig); err != nil {
			return err
		}
		var err error
		if heal, err = s.refuse(component); err != nil {
			return &halfError{err}
		}
		return nil
	}, func(ctx context.Context) error {
		err := s.r.Up(ctx, component)
		if heal != nil {
			err = errors.Join(err, heal())
		}
		return err
	})
}

// signal sends a signal to a PostgreSQL, and waits for the end of one that is killed.
func (s *Stack) signal(ctx context.Context, component string, sig syscall.Signal) error {
	pid, err := s.PID(component)
	if err != nil {
		return err
	}
	if err := s.r.Signal(component, sig); err != nil || sig != syscall.SIGKILL {
		return err
	}
	for {
		if now, err := s.PID(component); err != nil || now != pid {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Millisecond):
		}
	}
}

// refuse has the links to a component refuse connections, as it would itself: a proxy accepts for who is not there.
func (s *Stack) refuse(component string) (heal func() error, err error) {
	if s.links == nil {
		return nil, nil
	}
	return s.links.hit(
		func(l Link) (bool, error) { return l.To == component || strings.HasPrefix(l.To, component+"/"), nil },
		s.links.cut)
}

// Freeze stops all processes of a component where they are (SIGSTOP): it keeps its connections and does nothing. Of
// "n1/patroni" that is Patroni alone. The undo lets them go on.
func (s *Stack) Freeze(component string) Undo {
	s.t.Helper()
	return s.inject("freeze "+component,
		func(context.Context) error { return s.r.Freeze(component) },
		func(context.Context) error { return s.r.Thaw(component) })
}

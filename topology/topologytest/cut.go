package topologytest

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

// Links are all links of the stack, sorted; none with [Options.Direct].
func (s *Stack) Links() []Link {
	if s.links == nil {
		return nil
	}
	return s.links.list()
}

// Cut breaks links: their connections are reset, new ones are refused. From and to are components, or patterns as
// [path.Match] has them: "n1/patroni" and "etcd-*" cut a Patroni off from all of its store.
func (s *Stack) Cut(from, to string) Undo {
	s.t.Helper()
	return s.broken("cut", from, to, func(l Link) (func() error, error) { return s.links.cut(l) })
}

// HalfOpen makes links deaf: connections stay and new ones are accepted, but what is sent in this direction does not
// arrive before the undo, as in a partition of a network: then it does, late, if both ends are still there. From and to
// are as for [Stack.Cut].
func (s *Stack) HalfOpen(from, to string, d Direction) Undo {
	s.t.Helper()
	return s.broken("half-open", from, to, func(l Link) (func() error, error) { return s.links.halfOpen(l, d) })
}

// Delay makes links slow: each answer takes latency longer, more or less by up to jitter. From and to are as for
// [Stack.Cut].
func (s *Stack) Delay(from, to string, latency, jitter time.Duration) Undo {
	s.t.Helper()
	verb := fmt.Sprintf("delay by %v", latency)
	if jitter > 0 {
		verb += fmt.Sprintf(" +- %v", jitter)
	}
	return s.broken(verb, from, to, func(l Link) (func() error, error) { return s.links.delay(l, latency, jitter) })
}

// Throttle makes links narrow, in each direction. From and to are as for [Stack.Cut].
func (s *Stack) Throttle(from, to string, bytesPerSecond int) Undo {
	s.t.Helper()
	verb := fmt.Sprintf("throttle to %d B/s", bytesPerSecond)
	return s.broken(verb, from, to, func(l Link) (func() error, error) { return s.links.throttle(l, bytesPerSecond) })
}

// Isolate parts a node from all others as a network does that fails: all links from it and to it are half-open in both
// directions.
func (s *Stack) Isolate(node string) Undo {
	s.t.Helper()
	of := func(component string) bool { return component == node || strings.HasPrefix(component, node+"/") }
	return s.each("isolate "+node,
		func(l Link) (bool, error) { return of(l.From) || of(l.To), nil },
		func(l Link) (func() error, error) { return s.links.halfOpen(l, Both) })
}

func (s *Stack) broken(verb, from, to string, do func(Link) (func() error, error)) Undo {
	s.t.Helper()
	return s.each(verb+" "+Link{from, to}.String(), func(l Link) (bool, error) {
		a, err1 := path.Match(from, l.From)
		b, err2 := path.Match(to, l.To)
		return a && b, errors.Join(err1, err2)
	}, do)
}

// each does a fault to all links that match.
func (s *Stack) each(name string, match func(Link) (bool, error), do func(Link) (func() error, error)) Undo {
	s.t.Helper()
	var undo func() error
	return s.inject(name, func(context.Context) error {
		if s.links == nil {
			return errors.New("this stack has no proxies: Options.Direct is set")
		}
		var err error
		if undo, err = s.links.hit(match, do); err == nil && undo == nil {
			err = fmt.Errorf("there is no such link, but %v", s.links.list())
		}
		return err
	}, func(context.Context) error { return undo() })
}

// hit does a fault to all links that match, or to none; a nil undo means that there are none.
func (ls *links) hit(match func(Link) (bool, error), do func(Link) (func() error, error)) (undo func() error, err error) {
	var undos []func() error
	all := func() error {
		var errs []error
		for _, undo := range slices.Backward(undos) {
			errs = append(errs, undo())
		}
		return errors.Join(errs...)
	}
	for _, l := range ls.list() {
		ok, err := match(l)
		if err == nil && ok {
			var one func() error
			if one, err = do(l); err == nil {
				undos = append(undos, one)
			}
		}
		if err != nil {
			return nil, errors.Join(err, all())
		}
	}
	if len(undos) == 0 {
		return nil, nil
	}
	return all, nil
}

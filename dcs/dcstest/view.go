package dcstest

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// view is a watch that runs beside a case. It checks what holds for all elements, each of them.
type view struct {
	f    *fixture
	c    <-chan dcs.Snapshot
	last dcs.Snapshot // that the case has seen
	wait func() error // for the end of the watch; its reason

	restored atomic.Bool // the store was replaced by an older copy: versions may go back
}

// follow watches the fixture's directory through r until the case ends.
func (f *fixture) follow(r dcs.Reader) *view {
	ctx, cancel := context.WithCancel(f.ctx)
	v := &view{f: f}
	c, wait := dcs.Latest(func(yield func(dcs.Snapshot, error) bool) {
		var last dcs.Snapshot
		seen := make(map[string]dcs.Version) // the highest of each key
		for s, err := range r.Watch(ctx, f.dir) {
			if err == nil {
				v.check(s, last, seen)
				last = s
			}
			if !yield(s, err) {
				return
			}
		}
	})
	v.c, v.wait = c, wait
	f.Cleanup(func() {
		cancel()
		if err := wait(); !errors.Is(err, context.Cause(ctx)) && !f.Failed() {
			f.Errorf("the watch ended with %v", err)
		}
	})
	return v
}

// until waits until an element is as it should be: the present one, or a later one.
func (v *view) until(what string, ok func(dcs.Snapshot) bool) dcs.Snapshot {
	v.f.Helper()
	begin := time.Now()
	for !ok(v.last) {
		select {
		case s, open := <-v.c:
			if !open {
				v.f.Fatalf("the watch ended with %v before it was %s", v.wait(), what)
			}
			v.last = s
		case <-v.f.ctx.Done():
			v.f.Fatalf("not %s: it is %.2000v, known %v, stale: %v", what, v.f.list(v.last), v.last.Known(), v.last.Stale)
		}
	}
	v.f.Logf("%s after %v", what, time.Since(begin).Round(time.Millisecond))
	return v.last
}

// newest is the present element.
func (v *view) newest() dcs.Snapshot {
	select {
	case s, open := <-v.c:
		if !open {
			v.f.Fatalf("the watch ended with %v", v.wait())
		}
		v.last = s
	default:
	}
	return v.last
}

func (v *view) check(s, last dcs.Snapshot, seen map[string]dcs.Version) {
	if last.Known() && !s.Known() {
		v.f.Errorf("known no more")
	}
	if s.At.Before(last.At) {
		v.f.Errorf("At went back from %v to %v", last.At, s.At)
	}
	if s.Known() && !monotonic(s.At) {
		v.f.Errorf("At is %v, without a reading of the monotonic clock", s.At)
	}
	for key := range s.Changed(last) {
		e, ok := s.Get(key)
		if !ok {
			continue
		}
		if older(e.Version, seen[key]) && !v.restored.Load() {
			v.f.Errorf("%s went back from %v to %v", key, seen[key], e.Version)
		}
		seen[key] = e.Version
	}
}

func older(a, b dcs.Version) bool {
	return a.Created < b.Created || a.Created == b.Created && a.Modified < b.Modified
}

// monotonic reports whether a moment was read from the monotonic clock, in a process that has one. (In a bubble of
// testing/synctest there is none.)
func monotonic(at time.Time) bool {
	const reading = " m=" // as time.Time.String has it
	return strings.Contains(at.String(), reading) || !strings.Contains(time.Now().String(), reading)
}

// gone reports whether key is known to be absent.
func gone(key string) func(dcs.Snapshot) bool {
	return func(s dcs.Snapshot) bool {
		_, ok := s.Get(key)
		return fresh(s) && !ok
	}
}

// has reports whether key is known to have this version.
func has(key string, version dcs.Version) func(dcs.Snapshot) bool {
	return func(s dcs.Snapshot) bool {
		e, _ := s.Get(key)
		return fresh(s) && e.Version == version
	}
}

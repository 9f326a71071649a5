package memory

import (
	"cmp"
	"context"
	"iter"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// Watch implements [dcs.Reader]. It runs in the consumer's goroutine: each element is made when it is asked for.
func (s *Store) Watch(ctx context.Context, dir string) iter.Seq2[dcs.Snapshot, error] {
	return func(yield func(dcs.Snapshot, error) bool) {
		var last dcs.Snapshot
		if err := dcs.CheckKey("dir", dir); err != nil {
			yield(last, err)
			return
		}
		wake := make(chan struct{}, 1)
		s.mu.Lock()
		if s.watches == nil {
			s.watches = make(map[chan<- struct{}]struct{})
		}
		s.watches[wake] = struct{}{}
		s.mu.Unlock()
		defer func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.watches, wake)
		}()
		reconfirm := cmp.Or(s.Reconfirm, defaultReconfirm)
		var trouble *outage
		for ctx.Err() == nil {
			next, out, until := s.level(dir, last)
			if out != trouble || !last.Known() || differ(next, last) || next.At.Sub(last.At) >= reconfirm {
				last, trouble = next, out
				if !yield(last, nil) {
					return
				}
			}
			if out == nil {
				until = earlier(until, last.At.Add(reconfirm))
			}
			t := time.NewTimer(time.Until(until))
			select {
			case <-ctx.Done():
			case <-wake:
			case <-t.C:
			}
			t.Stop()
		}
		yield(last, context.Cause(ctx))
	}
}

// level is what a watch knows now, the trouble that keeps it from knowing more, and when it must look again although
// nobody wrote.
func (s *Store) level(dir string, last dcs.Snapshot) (next dcs.Snapshot, out *outage, until time.Time) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	until = now.Add(time.Hour)
	if s.down != nil {
		last.Stale = s.down.err
		return last, s.down, until
	}
	s.expire(now)
	for _, ends := range s.leases {
		until = earlier(until, ends)
	}
	return last.Renew(now, s.below(dir)), nil, until
}

func differ(a, b dcs.Snapshot) bool {
	for range a.Changed(b) {
		return true
	}
	return false
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

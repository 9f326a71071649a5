package memory

import (
	"cmp"
	"context"
	"iter"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// Watch implements [dcs.Reader]. It runs in the consumer's goroutine: each element is made when it is asked for.
func (c *Client) Watch(ctx context.Context, dir string) iter.Seq2[dcs.Snapshot, error] {
	return func(yield func(dcs.Snapshot, error) bool) {
		var last dcs.Snapshot
		if err := dcs.CheckKey("dir", dir); err != nil {
			yield(last, err)
			return
		}
		wake, forget := c.s.wait()
		defer forget()
		reconfirm := cmp.Or(c.s.Reconfirm, defaultReconfirm)
		var trouble *outage
		for ctx.Err() == nil {
			next, out, until := c.level(dir, last, reconfirm)
			if out != trouble || !last.Known() && out == nil || differ(next, last) || next.At.Sub(last.At) >= reconfirm {
				last, trouble = next, out
				if !yield(last, nil) {
					return
				}
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

var (
	cutOff   = &outage{errCut}
	silenced = &outage{errSilent}
)

// level is what a watch knows now, the trouble that keeps it from knowing more, and when it must look again although
// nobody wakes it.
func (c *Client) level(dir string, last dcs.Snapshot, reconfirm time.Duration) (next dcs.Snapshot, out *outage, until time.Time) {
	now := time.Now()
	due := last.At.Add(reconfirm)
	if !last.Known() {
		due = now
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	until = now.Add(time.Hour)
	switch silent := c.muted+c.halted > 0; {
	case c.cut > 0:
		out = cutOff
	case c.s.down != nil && !silent:
		out = c.s.down
	case silent && (last.Stale != nil || !now.Before(due)):
		out = silenced
	case silent || c.deaf > 0 && last.Stale == nil && now.Before(due):
		return last, nil, due // no news yet, and no doubt
	}
	if out != nil {
		last.Stale = out.err
		return last, out, until
	}
	c.s.expire(now)
	for _, ends := range c.s.leases {
		until = earlier(until, ends)
	}
	return last.Renew(now, c.s.below(dir)), nil, earlier(until, now.Add(reconfirm))
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

package memory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
)

var _ dcs.Store = (*Client)(nil)

// Client is one of several clients of a [Store], with a path of its own that can be broken while the others are
// served. Make one with [Store.Client].
type Client struct {
	s *Store

	// Guarded by s.mu. How often each fault is in force:
	cut, muted, halted, deaf int
	cuts                     int        // counts Cut: what was under way then is lost
	queue                    []*request // kept back on the way to the store
}

// request is what a client has sent.
type request struct {
	serve  func() // carries it out, under the store's lock
	served bool
}

// Client returns a client of s.
func (s *Store) Client() *Client { return &Client{s: s} }

// Cut ends the connection and refuses new ones: calls fail at once and change nothing, those under way have an unknown
// outcome.
func (c *Client) Cut() (heal func()) {
	heal = c.fault(&c.cut)
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.cuts++
	c.queue = nil
	c.s.changed()
	return heal
}

// Mute lets requests arrive and be carried out, and keeps the answers back.
func (c *Client) Mute() (heal func()) { return c.fault(&c.muted) }

// Halt keeps requests and answers back. The requests arrive when it is healed, also those whose callers have given up.
func (c *Client) Halt() (heal func()) { return c.fault(&c.halted) }

// Deafen keeps the news back from the client's watches: they learn of a change when they confirm their content.
func (c *Client) Deafen() (heal func()) { return c.fault(&c.deaf) }

func (c *Client) fault(n *int) (heal func()) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	*n++
	return sync.OnceFunc(func() {
		c.s.mu.Lock()
		defer c.s.mu.Unlock()
		*n--
		if c.halted == 0 {
			for _, r := range c.queue {
				r.serve()
				r.served = true
			}
			c.queue = nil
		}
		c.s.changed()
	})
}

// errNoAnswer says that a request was sent, and why there is no answer.
type errNoAnswer struct{ error }

func (e errNoAnswer) Unwrap() error { return e.error }

// send has serve carried out by the store, and waits for the answer. The error is an errNoAnswer, or says that nothing
// was sent; without one, serve has returned.
func (c *Client) send(ctx context.Context, serve func()) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if _, ok := ctx.Deadline(); !ok {
		timeout := cmp.Or(c.s.Timeout, defaultTimeout)
		var cancel func()
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, fmt.Errorf("%w within %v", errSilent, timeout))
		defer cancel()
	}
	wake, forget := c.s.wait()
	defer forget()
	r := &request{serve: serve}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.cut > 0 {
		return errCut
	}
	cuts := c.cuts
	if c.halted > 0 {
		c.queue = append(c.queue, r)
	} else {
		r.serve()
		r.served = true
	}
	for !r.served || c.muted+c.halted > 0 {
		if c.cuts != cuts {
			return errNoAnswer{errCut}
		}
		c.s.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
		}
		c.s.mu.Lock()
		if err := context.Cause(ctx); err != nil {
			return errNoAnswer{err}
		}
	}
	return nil
}

// Get implements [dcs.Reader].
func (c *Client) Get(ctx context.Context, dir string) (dcs.Snapshot, error) {
	if err := dcs.CheckKey("dir", dir); err != nil {
		return dcs.Snapshot{}, err
	}
	at := time.Now()
	var list []dcs.Entry
	var err error
	if serr := c.send(ctx, func() {
		if c.s.down != nil {
			err = c.s.down.err
			return
		}
		c.s.expire(time.Now())
		list = c.s.below(dir)
	}); serr != nil {
		return dcs.Snapshot{}, fmt.Errorf("memory: read %s: %w", dir, serr)
	}
	if err != nil {
		return dcs.Snapshot{}, fmt.Errorf("memory: read %s: %w", dir, err)
	}
	return dcs.NewSnapshot(at, list), nil
}

// Put implements [dcs.Writer].
func (c *Client) Put(ctx context.Context, key string, value []byte, prev dcs.Version) (dcs.Version, error) {
	return c.put(ctx, key, value, prev, 0)
}

func (c *Client) put(ctx context.Context, key string, value []byte, prev dcs.Version, lease uint64) (dcs.Version, error) {
	if err := dcs.CheckValue(key, value); err != nil {
		return dcs.Version{}, err
	}
	value = append([]byte(nil), value...)
	var next dcs.Version
	err := c.write(ctx, "put", key, func() (err error) {
		next, err = c.s.put(key, value, prev, lease)
		return err
	})
	if err != nil {
		return dcs.Version{}, err
	}
	return next, nil
}

// Delete implements [dcs.Writer].
func (c *Client) Delete(ctx context.Context, key string, prev dcs.Version) error {
	return c.write(ctx, "delete", key, func() error { return c.s.remove(key, prev) })
}

// write sends a change, and says of a failed one whether it may have been applied.
func (c *Client) write(ctx context.Context, op, key string, apply func() error) error {
	if err := dcs.CheckKey("key", key); err != nil {
		return err
	}
	var refused error
	err := c.send(ctx, func() { refused = apply() })
	switch _, sent := errors.AsType[errNoAnswer](err); {
	case sent:
		return fmt.Errorf("memory: %s %s: %w: %w", op, key, dcs.ErrUnknown, err)
	case err != nil:
		return fmt.Errorf("memory: %s %s: not applied: %w", op, key, err)
	case refused != nil:
		return fmt.Errorf("memory: %s %s: not applied: %w", op, key, refused)
	}
	return nil
}

package dcstest

import (
	"context"
	"iter"
	"path"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// unconfirmed says nothing when nothing has changed.
type unconfirmed struct{ dcs.Store }

func (u unconfirmed) Watch(ctx context.Context, dir string) iter.Seq2[dcs.Snapshot, error] {
	return func(yield func(dcs.Snapshot, error) bool) {
		var last dcs.Snapshot
		for s, err := range u.Store.Watch(ctx, dir) {
			same := last.Known() && s.Stale == last.Stale //nolint:errorlint // the same one
			for range s.Changed(last) {
				same = false
			}
			if last = s; (!same || err != nil) && !yield(s, err) {
				return
			}
		}
	}
}

// goingBack repeats what was before what is.
type goingBack struct{ dcs.Store }

func (g goingBack) Watch(ctx context.Context, dir string) iter.Seq2[dcs.Snapshot, error] {
	return func(yield func(dcs.Snapshot, error) bool) {
		var last dcs.Snapshot
		for s, err := range g.Store.Watch(ctx, dir) {
			again := last
			again.At = s.At
			if !yield(s, err) || err == nil && last.Known() && (!yield(again, nil) || !yield(s, nil)) {
				return
			}
			last = s
			time.Sleep(time.Millisecond) // the consumer sees each
		}
	}
}

// once shows the beginning alone.
type once struct{ dcs.Store }

func (o once) Watch(ctx context.Context, dir string) iter.Seq2[dcs.Snapshot, error] {
	return func(yield func(dcs.Snapshot, error) bool) {
		var last dcs.Snapshot
		for s, err := range o.Store.Watch(ctx, dir) {
			if last = s; err != nil || s.Stale == nil {
				break
			}
		}
		if yield(last, nil) {
			<-ctx.Done()
			yield(last, context.Cause(ctx))
		}
	}
}

// leaking has a goroutine for each watch as long as its context lives.
type leaking struct{ dcs.Store }

func (l leaking) Watch(ctx context.Context, dir string) iter.Seq2[dcs.Snapshot, error] {
	return func(yield func(dcs.Snapshot, error) bool) {
		go func() { <-ctx.Done() }()
		l.Store.Watch(ctx, dir)(yield)
	}
}

// emptied cannot tell nothing from no answer.
type emptied struct{ dcs.Store }

func (e emptied) Get(ctx context.Context, dir string) (dcs.Snapshot, error) {
	s, err := e.Store.Get(ctx, dir)
	if err != nil && dcs.CheckKey("dir", dir) == nil && ctx.Err() == nil {
		return dcs.NewSnapshot(time.Now(), nil), nil
	}
	return s, err
}

// uncompared writes whatever was there.
type uncompared struct{ dcs.Store }

func (u uncompared) Put(ctx context.Context, key string, value []byte, prev dcs.Version) (dcs.Version, error) {
	if s, err := u.Get(ctx, path.Dir(key)); err == nil {
		e, _ := s.Get(key)
		prev = e.Version
	}
	return u.Store.Put(ctx, key, value, prev)
}

// halfCompared takes a key for the one that it replaced.
type halfCompared struct{ dcs.Store }

func (h halfCompared) Put(ctx context.Context, key string, value []byte, prev dcs.Version) (dcs.Version, error) {
	if s, err := h.Get(ctx, path.Dir(key)); err == nil {
		if e, ok := s.Get(key); ok && e.Version.Modified == prev.Modified {
			prev = e.Version
		}
	}
	return h.Store.Put(ctx, key, value, prev)
}

// untold lets the holder believe.
type untold struct{ dcs.Store }

func (u untold) Lease(ctx context.Context, fn func(ctx context.Context, w dcs.Writer) error) error {
	return u.Store.Lease(ctx, func(_ context.Context, w dcs.Writer) error { return fn(ctx, w) })
}

// permanent leases are none.
type permanent struct{ dcs.Store }

func (p permanent) Lease(ctx context.Context, fn func(ctx context.Context, w dcs.Writer) error) error {
	return p.Store.Lease(ctx, func(ctx context.Context, _ dcs.Writer) error { return fn(ctx, p) })
}

// keyEnder leaves the holder its lease.
type keyEnder struct{ dcs.Store }

func (k keyEnder) Revoke(ctx context.Context, key string, value []byte, v dcs.Version) error {
	if s, err := k.Get(ctx, path.Dir(key)); err == nil {
		if e, _ := s.Get(key); string(e.Value) != string(value) {
			return dcs.ErrConflict
		}
	}
	return k.Delete(ctx, key, v)
}

// anyEnder compares nothing.
type anyEnder struct{ dcs.Store }

func (a anyEnder) Revoke(ctx context.Context, key string, value []byte, v dcs.Version) error {
	s, err := a.Get(ctx, path.Dir(key))
	if err != nil {
		return err
	}
	if e, ok := s.Get(key); ok {
		value, v = e.Value, e.Version
	}
	return a.Store.(dcs.Revoker).Revoke(ctx, key, value, v)
}

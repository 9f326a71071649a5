package memory_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/memory"
)

var errDown = errors.New("no quorum")

// follow runs a watch in the bubble and offers its newest element.
func follow(t *testing.T, s dcs.Reader) <-chan dcs.Snapshot {
	ctx, cancel := context.WithCancel(t.Context())
	c, wait := dcs.Latest(s.Watch(ctx, "/a"))
	t.Cleanup(func() {
		cancel()
		if err := wait(); !errors.Is(err, context.Canceled) {
			t.Errorf("watch ended with %v", err)
		}
	})
	return c
}

func put(t *testing.T, w dcs.Writer, key, value string, prev dcs.Version) dcs.Version {
	t.Helper()
	v, err := w.Put(t.Context(), key, []byte(value), prev)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestWatchWhileDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New()
		v := put(t, s, "/a/k", "1", dcs.Version{})
		c := follow(t, s)
		first := <-c
		time.Sleep(3 * time.Second)
		s.SetDown(errDown)
		stale := <-c
		e, _ := stale.Get("/a/k")
		if !errors.Is(stale.Stale, errDown) || !stale.At.Equal(first.At) || e.Version != v {
			t.Errorf("stale %v, at %v, entry %v", stale.Stale, stale.At, e)
		}
		time.Sleep(time.Hour)
		select {
		case again := <-c:
			t.Errorf("nothing new, and yet %v", again)
		default:
		}
		s.SetDown(nil)
		if fresh := <-c; fresh.Stale != nil || time.Since(fresh.At) > 0 {
			t.Errorf("after the outage: %v at %v", fresh.Stale, fresh.At)
		}
	})
}

func TestWatchThatNeverKnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New()
		s.SetDown(errDown)
		if first := <-follow(t, s); first.Known() || !errors.Is(first.Stale, errDown) {
			t.Errorf("known %v, stale %v", first.Known(), first.Stale)
		}
	})
}

func TestWatchConfirms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &memory.Store{Reconfirm: 7 * time.Second}
		c := follow(t, s)
		at := (<-c).At
		for range 3 {
			next := (<-c).At
			if next.Sub(at) != 7*time.Second {
				t.Errorf("confirmed after %v", next.Sub(at))
			}
			at = next
		}
		put(t, s, "/elsewhere/k", "1", dcs.Version{})
		synctest.Wait()
		select {
		case <-c:
			t.Error("a change elsewhere is an element here")
		default:
		}
	})
}

func TestCallsWhileDown(t *testing.T) {
	s := memory.New()
	s.SetDown(errDown)
	_, get := s.Get(t.Context(), "/a")
	_, put := s.Put(t.Context(), "/a/k", nil, dcs.Version{})
	lease := s.Lease(t.Context(), func(context.Context, dcs.Writer) error { return nil })
	for _, err := range []error{get, put, lease, s.Delete(t.Context(), "/a/k", dcs.Version{Created: 1})} {
		if !errors.Is(err, errDown) || errors.Is(err, dcs.ErrUnknown) {
			t.Error(err)
		}
	}
}

func TestLeaseIsLostWhileDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &memory.Store{TTL: 10 * time.Second}
		begin := time.Now()
		err := s.Lease(t.Context(), func(ctx context.Context, w dcs.Writer) error {
			put(t, w, "/a/k", "1", dcs.Version{})
			time.Sleep(25 * time.Second) // renewed many times
			if ctx.Err() != nil {
				t.Errorf("lost while the store was up: %v", context.Cause(ctx))
			}
			s.SetDown(errDown)
			<-ctx.Done()
			return ctx.Err()
		})
		if !errors.Is(err, dcs.ErrLeaseLost) || !errors.Is(err, errDown) {
			t.Errorf("lease ended with %v", err)
		}
		// The last renewal was at 23.3 s or later; a tenth of the TTL is left when fn is told.
		if d := time.Since(begin); d < 30*time.Second || d > 34*time.Second {
			t.Errorf("lost after %v", d)
		}
		s.SetDown(nil)
		if snap, err := s.Get(t.Context(), "/a"); err != nil {
			t.Error(err)
		} else if _, ok := snap.Get("/a/k"); !ok {
			t.Error("the key was given away before its holder knew")
		}
		time.Sleep(10 * time.Second)
		if snap, err := s.Get(t.Context(), "/a"); err != nil {
			t.Error(err)
		} else if _, ok := snap.Get("/a/k"); ok {
			t.Error("the key outlives its lease")
		}
	})
}

func TestWatchSeesTheEndOfALease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &memory.Store{TTL: 10 * time.Second, Reconfirm: time.Hour}
		hung, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			_ = s.Lease(hung, func(ctx context.Context, w dcs.Writer) error {
				put(t, w, "/a/k", "1", dcs.Version{})
				s.SetDown(errDown) // no renewal, nor a release
				<-ctx.Done()
				return nil
			})
		}()
		synctest.Wait()
		time.Sleep(9500 * time.Millisecond)
		s.SetDown(nil)
		c := follow(t, s)
		if _, ok := (<-c).Get("/a/k"); !ok {
			t.Fatal("the key is gone before the end of its lease")
		}
		begin := time.Now()
		if _, ok := (<-c).Get("/a/k"); ok || time.Since(begin) != 500*time.Millisecond {
			t.Errorf("there %v after %v", ok, time.Since(begin))
		}
	})
}

func TestTTLIsChecked(t *testing.T) {
	s := &memory.Store{TTL: -1}
	if err := s.Lease(t.Context(), nil); !errors.Is(err, dcs.ErrInvalid) {
		t.Error(err)
	}
}

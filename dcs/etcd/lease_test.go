package etcd_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/embedded"
	"github.com/pgconvoy/pgconvoy/internal/leak"
	"github.com/pgconvoy/pgconvoy/internal/storetest"
)

// The cases run side by side: a lease gives its holder a tenth of its TTL to notice the end, and only that of a long
// one is more than a busy machine may sleep.
func TestLeaseInTrouble(t *testing.T) {
	leak.Check(t)
	s := start(t, embedded.Config{})
	const ttl = 10 * time.Second
	for name, fault := range map[string]func(storetest.Paths){
		"cut":      func(p storetest.Paths) { p.Cut() },
		"withheld": func(p storetest.Paths) { p.Mute() },
	} {
		t.Run("lost in time/"+name, func(t *testing.T) {
			t.Parallel()
			p := path(t, s)
			store := connect(t, p.Addrs())
			store.TTL = ttl
			there := func(s dcs.Snapshot) bool {
				_, ok := s.Get(dir + "/" + name)
				return ok
			}
			err := store.Lease(t.Context(), func(ctx context.Context, w dcs.Writer) error {
				storetest.Put(t, w, name, "1", dcs.Version{})
				begin := time.Now()
				fault(p)
				<-ctx.Done()
				t.Logf("lost after %v: %v", time.Since(begin).Round(time.Millisecond), context.Cause(ctx))
				if snap, err := s.Store().Get(t.Context(), dir); err != nil || !there(snap) {
					t.Errorf("the key is gone already: %q, %v", storetest.Content(snap), err)
				}
				return ctx.Err()
			})
			if !errors.Is(err, dcs.ErrLeaseLost) {
				t.Errorf("lease ended with %v", err)
			}
			f := storetest.Follow(t, s.Store())
			f.Until("given away", func(s dcs.Snapshot) bool { return s.Stale == nil && !there(s) })
		})
	}
	t.Run("outlives a short one", func(t *testing.T) {
		t.Parallel()
		p := path(t, s)
		store := connect(t, p.Addrs())
		store.TTL = ttl
		err := store.Lease(t.Context(), func(ctx context.Context, _ dcs.Writer) error {
			heal := p.Cut()
			trouble := time.After(ttl/3 + time.Second) // a renewal falls into it
			healed := time.After(ttl + time.Second)    // only a renewal makes it last so long
			for {
				select {
				case <-trouble:
					heal()
				case <-healed:
					return nil
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func TestLeaseThatTheServerEnded(t *testing.T) {
	leak.Check(t)
	s := start(t, embedded.Config{})
	store := s.Store()
	store.TTL = 3 * time.Second
	err := store.Lease(t.Context(), func(ctx context.Context, _ dcs.Writer) error {
		all, err := s.Client().Leases(ctx)
		if err != nil {
			return err
		}
		for _, l := range all.Leases {
			if _, err := s.Client().Revoke(ctx, l.ID); err != nil {
				return err
			}
		}
		<-ctx.Done()
		return context.Cause(ctx)
	})
	if !errors.Is(err, dcs.ErrLeaseLost) {
		t.Errorf("lease ended with %v", err)
	}
}

func TestLeaseNeedsASecond(t *testing.T) {
	store := connect(t, []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")})
	store.TTL = time.Millisecond
	if err := store.Lease(t.Context(), nil); !errors.Is(err, dcs.ErrInvalid) {
		t.Error(err)
	}
}

// A write whose answer is lost was applied here, and must not be called anything but unknown.
func TestWriteWithoutAnAnswer(t *testing.T) {
	leak.Check(t)
	s := start(t, embedded.Config{})
	for name, fault := range map[string]struct {
		timeout time.Duration
		end     func(storetest.Paths)
	}{
		"deadline":   {2 * time.Second, nil},
		"connection": {time.Minute, func(p storetest.Paths) { p.Cut() }},
	} {
		t.Run(name, func(t *testing.T) {
			p := path(t, s)
			store := connect(t, p.Addrs())
			store.Timeout = fault.timeout
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			v, err := store.Put(ctx, dir+"/"+name, []byte("1"), dcs.Version{}) // it is connected now
			if err != nil {
				t.Fatal(err)
			}
			f := storetest.Follow(t, s.Store())
			p.Mute()
			failed := make(chan error, 1)
			go func() {
				_, err := store.Put(t.Context(), dir+"/"+name, []byte("2"), v)
				failed <- err
			}()
			f.Until("written", func(s dcs.Snapshot) bool {
				e, _ := s.Get(dir + "/" + name)
				return string(e.Value) == "2"
			})
			if fault.end != nil {
				fault.end(p)
			}
			err = <-failed
			if !errors.Is(err, dcs.ErrUnknown) || !strings.HasPrefix(err.Error(), "etcd: put /demo/"+name) {
				t.Errorf("the error is %v", err)
			}
			t.Log(err)
		})
	}
}

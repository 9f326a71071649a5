package consul_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/storetest"
)

func TestLeaseNeedsATTL(t *testing.T) {
	store := connect(t, netip.MustParseAddrPort("127.0.0.1:1"))
	for _, ttl := range []time.Duration{-time.Second, 9999 * time.Millisecond, 24*time.Hour + 1} {
		store.TTL = ttl
		if err := store.Lease(t.Context(), nil); !errors.Is(err, dcs.ErrInvalid) || !strings.Contains(err.Error(), "TTL") {
			t.Errorf("TTL %v: %v", ttl, err)
		}
	}
}

// What the session looks like that a lease is: no health check of the node ends it, and it leaves no lock-delay.
func sessionOfALease(t *testing.T, s *storetest.Servers) {
	c := client(t, s.Addrs()[0])
	store := connect(t, s.Addrs()[0])
	store.TTL = 90 * time.Second
	err := store.Lease(t.Context(), func(ctx context.Context, w dcs.Writer) error {
		storetest.Put(t, w, "k", "1", dcs.Version{})
		all, _, err := c.Session().List(nil)
		if err != nil || len(all) != 1 {
			t.Fatalf("sessions: %v, %v", all, err)
		}
		got := all[0]
		if got.TTL != "1m30s" || got.LockDelay != 0 || got.Behavior != api.SessionBehaviorDelete || len(got.Checks)+len(got.NodeChecks) > 0 {
			t.Errorf("the session is %+v", got)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if all, _, err := c.Session().List(nil); err != nil || len(all) != 0 {
		t.Errorf("sessions that are left: %v, %v", all, err)
	}
	// Nobody has to wait: the key can be had at once.
	err = store.Lease(t.Context(), func(ctx context.Context, w dcs.Writer) error {
		storetest.Put(t, w, "k", "1", dcs.Version{})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A key in the lock-delay of somebody else's session is waited for, as long as the context allows.
func lockDelay(t *testing.T, s *storetest.Servers) {
	c := client(t, s.Addrs()[0])
	store := connect(t, s.Addrs()[0])
	lose := func(name string, delay time.Duration) {
		t.Helper()
		id, _, err := c.Session().CreateNoChecks(&api.SessionEntry{LockDelay: delay, Behavior: api.SessionBehaviorDelete}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if ok, _, err := c.KV().Acquire(&api.KVPair{Key: dir[1:] + "/" + name, Session: id}, nil); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if _, err := c.Session().Destroy(id, nil); err != nil {
			t.Fatal(err)
		}
	}
	lose("short", time.Second)
	err := store.Lease(t.Context(), func(_ context.Context, w dcs.Writer) error {
		began := time.Now()
		storetest.Put(t, w, "short", "1", dcs.Version{})
		t.Logf("had after %v", time.Since(began))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	lose("long", time.Minute) // which outlasts this test: its key is used by no other
	err = store.Lease(t.Context(), func(ctx context.Context, w dcs.Writer) error {
		ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
		_, err := w.Put(ctx, dir+"/long", nil, dcs.Version{})
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, dcs.ErrUnknown) || !strings.Contains(err.Error(), "lock-delay") {
			t.Errorf("ended with %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	storetest.Put(t, store, "long", "1", dcs.Version{}) // a plain put needs no lock
}

// A session takes a key over from another one in one step: nobody sees it absent, and it has a new token.
func takeover(t *testing.T, s *storetest.Servers) {
	store, other := connect(t, s.Addrs()[0]), connect(t, s.Addrs()[0])
	err := store.Lease(t.Context(), func(ctx context.Context, first dcs.Writer) error {
		v := storetest.Put(t, first, "k", "1", dcs.Version{})
		v2 := storetest.Put(t, first, "k", "2", v)
		if v2.Created != v.Created {
			t.Errorf("its own session made it anew: %v, %v", v, v2)
		}
		return other.Lease(ctx, func(ctx context.Context, second dcs.Writer) error {
			if _, err := second.Put(ctx, dir+"/k", nil, v); !errors.Is(err, dcs.ErrConflict) {
				t.Errorf("a takeover at an old version: %v", err)
			}
			v3 := storetest.Put(t, second, "k", "3", v2)
			if v3.Created <= v2.Created {
				t.Errorf("taken over at %v after %v", v3, v2)
			}
			if _, err := first.Put(ctx, dir+"/k", nil, v2); !errors.Is(err, dcs.ErrConflict) {
				t.Errorf("the first one's late put: %v", err)
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	if snap, err := store.Get(t.Context(), dir); err != nil || storetest.Content(snap) != "" {
		t.Errorf("left: %v, %v", storetest.Content(snap), err)
	}
}

// A session that Consul ended: its holder is told, and its writer writes nothing, whatever version it names.
func sessionThatConsulEnded(t *testing.T, s *storetest.Servers) {
	store := connect(t, s.Addrs()[0])
	err := store.Lease(t.Context(), func(ctx context.Context, w dcs.Writer) error {
		v := storetest.Put(t, w, "k", "1", dcs.Version{})
		expire(t, s, dir+"/k")
		for _, prev := range []dcs.Version{{}, v} {
			if _, err := w.Put(ctx, dir+"/k", nil, prev); !errors.Is(err, dcs.ErrLeaseLost) {
				t.Errorf("a late put at %v: %v", prev, err)
			}
		}
		<-ctx.Done()
		return context.Cause(ctx)
	})
	if !errors.Is(err, dcs.ErrLeaseLost) {
		t.Errorf("lease ended with %v", err)
	}
}

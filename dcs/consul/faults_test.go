package consul_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/leak"
	"github.com/pgconvoy/pgconvoy/internal/storetest"
)

func TestWatchOfAServerThatWasNeverThere(t *testing.T) {
	leak.Check(t)
	store := connect(t, netip.MustParseAddrPort("127.0.0.1:1"))
	f := storetest.Follow(t, store)
	f.Until("stale", storetest.Stale)
	if f.Last.Known() {
		t.Error("known without a confirmation")
	}
	if !strings.Contains(f.Last.Stale.Error(), "127.0.0.1:1") {
		t.Errorf("the reason does not say what is wrong: %v", f.Last.Stale)
	}
	_, err := store.Put(t.Context(), dir+"/k", nil, dcs.Version{})
	if err == nil || errors.Is(err, dcs.ErrUnknown) || !strings.Contains(err.Error(), "not applied") {
		t.Errorf("a put that went nowhere: %v", err)
	}
}

// The agent restarts: a server with its data, here.
func restart(t *testing.T, s *storetest.Servers) {
	store := connect(t, s.Addrs()[0])
	store.TTL = 30 * time.Second // longer than any restart
	v := storetest.Put(t, store, "k", "1", dcs.Version{})
	f := storetest.Follow(t, store)
	f.Until("fresh", storetest.Fresh("k=1"))
	at := f.Last.At
	err := store.Lease(t.Context(), func(ctx context.Context, w dcs.Writer) error {
		mine := storetest.Put(t, w, "mine", "1", dcs.Version{})
		f.Until("fresh", storetest.Fresh("k=1 mine=1"))
		s.Stop(t, 0)
		closed := time.Now()
		f.Until("stale", storetest.Stale)
		if storetest.Content(f.Last) != "k=1 mine=1" || f.Last.At.Before(at) || f.Last.At.After(closed) {
			t.Errorf("stale content is %q of %v, confirmed at %v, closed at %v", storetest.Content(f.Last), f.Last.At, at, closed)
		}
		s.Start(t, 0)
		f.Until("fresh again", storetest.Fresh("k=1 mine=1"))
		if e, _ := f.Last.Get(dir + "/k"); e.Version != v {
			t.Errorf("version is %v, was %v", e.Version, v)
		}
		storetest.Put(t, w, "mine", "2", mine)
		storetest.Put(t, store, "k", "2", v)
		f.Until("following again", storetest.Fresh("k=2 mine=2"))
		return context.Cause(ctx)
	})
	if err != nil {
		t.Error(err)
	}
	f.Until("without the lease", storetest.Fresh("k=2"))
}

func watchNoticesSilence(t *testing.T, s *storetest.Servers) {
	p := storetest.NewProxy(t, s.Addrs()[0])
	store := connect(t, p.Addr())
	store.Reconfirm = 200 * time.Millisecond
	f := storetest.Follow(t, store)
	f.Until("fresh", storetest.Fresh(""))
	heal := p.Mute()
	f.Until("stale", storetest.Stale)
	storetest.Put(t, connect(t, s.Addrs()[0]), "k", "1", dcs.Version{})
	heal()
	f.Until("fresh", storetest.Fresh("k=1"))
}

// The store is replaced by a copy: the index goes back, and so do versions.
func watchOfAStoreThatWasReplaced(t *testing.T, s *storetest.Servers) {
	c := client(t, s.Addrs()[0])
	store := connect(t, s.Addrs()[0])
	store.Reconfirm = time.Hour
	v := storetest.Put(t, store, "k", "old", dcs.Version{})
	old := v
	r, _, err := c.Snapshot().Save(nil)
	if err != nil {
		t.Fatal(err)
	}
	copied, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	f := storetest.Follow(t, store)
	f.Until("fresh", storetest.Fresh("k=old"))
	for range 20 {
		v = storetest.Put(t, store, "k", "new", v)
	}
	storetest.Put(t, store, "other", "new", dcs.Version{})
	f.Until("fresh", storetest.Fresh("k=new other=new"))

	if err := c.Snapshot().Restore(nil, bytes.NewReader(copied)); err != nil {
		t.Fatal(err)
	}
	f.Until("the copy's", storetest.Fresh("k=old"))
	if e, _ := f.Last.Get(dir + "/k"); e.Version != old {
		t.Errorf("version is %v, in the copy it is %v", e.Version, old)
	}
	storetest.Put(t, store, "k", "1", old)
	f.Until("following the copy", storetest.Fresh("k=1"))
}

func TestWithoutALeader(t *testing.T) {
	leak.Check(t)
	s := storetest.Consul(t, 3, func(c map[string]any) {
		c["performance"].(map[string]any)["rpc_hold_timeout"] = "1s" // how long an agent looks for a leader
	})
	store := connect(t, s.Addrs()[0])
	store.Reconfirm = time.Second
	v := storetest.Put(t, store, "k", "1", dcs.Version{})
	f := storetest.Follow(t, store)
	f.Until("fresh", storetest.Fresh("k=1"))
	s.Kill(t, 1)
	s.Kill(t, 2)
	f.Until("stale", storetest.Stale)
	f.Until("stale for want of a leader", func(s dcs.Snapshot) bool {
		return storetest.Stale(s) && strings.Contains(s.Stale.Error(), "No cluster leader") && storetest.Content(s) == "k=1"
	})
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	if _, err := store.Get(ctx, dir); err == nil {
		t.Error("a read without a leader")
	}
	_, err := store.Put(ctx, dir+"/new", []byte("2"), dcs.Version{})
	t.Log(err)
	if err == nil {
		t.Error("a put without a leader")
	}
	s.Start(t, 1)
	s.Start(t, 2)
	f.Until("fresh again", func(s dcs.Snapshot) bool { return s.Stale == nil })
	if !errors.Is(err, dcs.ErrUnknown) && storetest.Content(f.Last) != "k=1" {
		t.Errorf("content is %v after a put that was not applied", storetest.Content(f.Last))
	}
	storetest.Put(t, store, "k", "2", v)
	f.Until("following again", func(s dcs.Snapshot) bool {
		e, _ := s.Get(dir + "/k")
		return s.Stale == nil && string(e.Value) == "2"
	})
}

func watchLeftAtAnyMoment(t *testing.T, s *storetest.Servers) {
	p := storetest.NewProxy(t, s.Addrs()[0])
	store := connect(t, p.Addr())
	store.Timeout = time.Minute // whoever waits for an answer takes as long
	storetest.Put(t, store, "k", "1", dcs.Version{})
	leak.Check(t, "pgconvoy/dcs/consul.") // while the client lives
	for i := range 80 {
		switch i {
		case 40:
			defer p.Mute()() // without answers
		case 60:
			defer p.Cut()() // and without a server
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%20)*time.Millisecond)
		begin := time.Now()
		var last error
		for _, err := range store.Watch(ctx, dir) {
			last = err
		}
		cancel()
		if !errors.Is(last, context.DeadlineExceeded) {
			t.Fatalf("round %d ended with %v", i, last)
		}
		if d := time.Since(begin); d > 10*time.Second {
			t.Errorf("round %d took %v", i, d)
		}
	}
}

// Leaving a watch ends its requests: the agent has none left to answer.
func watchEndsItsRequests(t *testing.T, s *storetest.Servers) {
	var open atomic.Int32
	dial := (&net.Dialer{}).DialContext
	store := connect(t, s.Addrs()[0], func(c *api.Config) {
		c.Transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dial(ctx, network, addr)
			if err == nil {
				open.Add(1)
				conn = &counted{Conn: conn, open: &open}
			}
			return conn, err
		}
	})
	for range 10 {
		for snap, err := range store.Watch(t.Context(), dir) {
			if err != nil {
				t.Fatal(err)
			}
			if snap.Known() {
				break
			}
		}
	}
	for deadline := time.Now().Add(within); open.Load() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d connections are open still", open.Load())
		}
	}
}

type counted struct {
	net.Conn
	open *atomic.Int32
	once sync.Once
}

func (c *counted) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}

// A user's HTTP client that is less patient than a watch makes it begin again, and no worse.
func impatientClient(t *testing.T, s *storetest.Servers) {
	store := connect(t, s.Addrs()[0], func(c *api.Config) {
		c.HttpClient = &http.Client{Transport: c.Transport, Timeout: time.Second}
	})
	f := storetest.Follow(t, store)
	f.Until("fresh", storetest.Fresh(""))
	at := f.Last.At
	f.Until("confirmed again", func(s dcs.Snapshot) bool { return s.Stale != nil || s.At.Sub(at) > 2*time.Second })
	if f.Last.Stale != nil {
		t.Errorf("stale: %v", f.Last.Stale)
	}
	storetest.Put(t, store, "k", "1", dcs.Version{})
	f.Until("following", storetest.Fresh("k=1"))
}

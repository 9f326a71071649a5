package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/embedded"
	"github.com/pgconvoy/pgconvoy/dcs/etcd"
	"github.com/pgconvoy/pgconvoy/internal/leak"
	"github.com/pgconvoy/pgconvoy/internal/storetest"
)

func TestWatchOfAServerThatWasNeverThere(t *testing.T) {
	leak.Check(t)
	addr := netip.MustParseAddrPort("127.0.0.1:1")
	f := storetest.Follow(t, connect(t, []netip.AddrPort{addr}))
	f.Until("stale", storetest.Stale)
	if f.Last.Known() {
		t.Error("known without a confirmation")
	}
	if !strings.Contains(f.Last.Stale.Error(), fmt.Sprintf("no connection to [http://%v]", addr)) {
		t.Errorf("the reason does not say what is wrong: %v", f.Last.Stale)
	}
}

func TestWatchSurvivesARestart(t *testing.T) {
	leak.Check(t)
	s := storetest.Etcd(t, 1)
	store := connect(t, s.Addrs())
	v := storetest.Put(t, store, "k", "1", dcs.Version{})
	f := storetest.Follow(t, store)
	f.Until("fresh", storetest.Fresh("k=1"))
	at := f.Last.At

	s.Stop(t, 0)
	closed := time.Now()
	f.Until("stale", storetest.Stale)
	if storetest.Content(f.Last) != "k=1" || f.Last.At.Before(at) || f.Last.At.After(closed) {
		t.Errorf("stale content is %q of %v, confirmed was k=1 of %v, closed at %v", storetest.Content(f.Last), f.Last.At, at, closed)
	}
	s.Start(t, 0)
	f.Until("fresh again", storetest.Fresh("k=1"))
	if e, _ := f.Last.Get(dir + "/k"); e.Version != v {
		t.Errorf("version is %v, was %v", e.Version, v)
	}
	storetest.Put(t, store, "k", "2", v)
	f.Until("following again", storetest.Fresh("k=2"))
}

// gRPC's own wait before it connects again grows from one second to two minutes: alone it would take minutes for as
// many attempts as are awaited here.
func TestWatchSurvivesAnOutageOfMinutes(t *testing.T) {
	leak.Check(t)
	s := start(t, embedded.Config{})
	p := path(t, s)
	f := storetest.Follow(t, connect(t, p.Addrs()))
	f.Until("fresh", storetest.Fresh(""))
	heal := p.Cut()
	f.Until("stale", storetest.Stale)
	for deadline := time.Now().Add(30 * time.Second); p[0].Refused() < 20; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d attempts to connect in 30 s, want 20", p[0].Refused())
		}
	}
	storetest.Put(t, s.Store(), "k", "1", dcs.Version{})
	heal()
	f.Until("fresh again", storetest.Fresh("k=1"))
}

func TestWatchSurvivesCompaction(t *testing.T) {
	leak.Check(t)
	s := start(t, embedded.Config{})
	p := path(t, s)
	f := storetest.Follow(t, connect(t, p.Addrs()))
	gone := storetest.Put(t, s.Store(), "gone", "1", dcs.Version{})
	f.Until("fresh", storetest.Fresh("gone=1"))
	heal := p.Cut()
	if err := s.Store().Delete(t.Context(), dir+"/gone", gone); err != nil {
		t.Fatal(err)
	}
	v := storetest.Put(t, s.Store(), "k", "0", dcs.Version{})
	for i := range 20 {
		v = storetest.Put(t, s.Store(), "k", fmt.Sprint(i), v)
	}
	if _, err := s.Client().Compact(t.Context(), int64(v.Modified), clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	heal()
	f.Until("fresh", storetest.Fresh("k=19"))
	storetest.Put(t, s.Store(), "k", "20", v)
	f.Until("following", storetest.Fresh("k=20"))
}

func TestWatchNoticesSilence(t *testing.T) {
	leak.Check(t)
	s := start(t, embedded.Config{})
	p := path(t, s)
	store := connect(t, p.Addrs())
	store.Reconfirm = 200 * time.Millisecond
	f := storetest.Follow(t, store)
	f.Until("fresh", storetest.Fresh(""))
	heal := p.Mute()
	f.Until("stale", storetest.Stale)
	storetest.Put(t, s.Store(), "k", "1", dcs.Version{})
	heal()
	f.Until("fresh", storetest.Fresh("k=1"))
}

func TestWatchOfAStoreThatWasReplaced(t *testing.T) {
	leak.Check(t)
	first := start(t, embedded.Config{})
	p := path(t, first)
	store := connect(t, p.Addrs())
	v := storetest.Put(t, store, "k", "0", dcs.Version{})
	for range 20 {
		v = storetest.Put(t, store, "k", "old", v)
	}
	f := storetest.Follow(t, store)
	f.Until("fresh", storetest.Fresh("k=old"))

	second := start(t, embedded.Config{})
	storetest.Put(t, second.Store(), "other", "new", dcs.Version{})
	p[0].Lead(address(second))
	f.Until("the new store's", storetest.Fresh("other=new"))
	storetest.Put(t, second.Store(), "another", "new", dcs.Version{})
	f.Until("following the new store", storetest.Fresh("another=new other=new"))
}

func TestWatchEndsWhenItIsHopeless(t *testing.T) {
	leak.Check(t)
	s := start(t, embedded.Config{})
	c := s.Client()
	ctx := t.Context()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.RoleAdd(ctx, "reader"))
	must(c.RoleGrantPermission(ctx, "reader", dir+"/", clientv3.GetPrefixRangeEnd(dir+"/"), clientv3.PermissionType(clientv3.PermRead)))
	must(c.UserAdd(ctx, "root", "secret-r"))
	must(c.UserGrantRole(ctx, "root", "root"))
	must(c.UserAdd(ctx, "reader", "secret-u"))
	must(c.UserGrantRole(ctx, "reader", "reader"))
	must(c.AuthEnable(ctx))
	as := func(user, password string) *etcd.Store {
		return connect(t, []netip.AddrPort{address(s)}, func(c *clientv3.Config) { c.Username, c.Password = user, password })
	}
	last := func(s dcs.Reader, dir string) error {
		t.Helper()
		for snap, err := range s.Watch(ctx, dir) {
			if err != nil {
				return err
			}
			if snap.Known() { // no answer yet is no mistake
				t.Fatalf("got %v, stale %v", storetest.Content(snap), snap.Stale)
			}
		}
		return nil
	}

	reader := as("reader", "secret-u")
	f := storetest.Follow(t, reader)
	f.Until("fresh with read rights alone", storetest.Fresh(""))
	for what, err := range map[string]error{
		"foreign directory": last(reader, "/other"),
		"no credentials":    last(connect(t, []netip.AddrPort{address(s)}), dir),
	} {
		if err == nil || !strings.HasPrefix(err.Error(), "etcd: read /") || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := reader.Put(ctx, dir+"/k", nil, dcs.Version{})
	if err == nil || errors.Is(err, dcs.ErrUnknown) || !strings.Contains(err.Error(), "not applied") {
		t.Errorf("put without the right: %v", err)
	}
	storetest.Put(t, as("root", "secret-r"), "k", "1", dcs.Version{})
	f.Until("following with read rights alone", storetest.Fresh("k=1"))
}

func TestWatchEndsWithItsClient(t *testing.T) {
	leak.Check(t)
	s := start(t, embedded.Config{})
	c := client(t, []netip.AddrPort{address(s)})
	var last error
	for _, last = range etcd.New(c).Watch(t.Context(), dir) {
		if last == nil {
			_ = c.Close()
		}
	}
	if last == nil || !strings.Contains(last.Error(), "closed") {
		t.Errorf("ended with %v", last)
	}
}

func TestWatchLeftAtAnyMoment(t *testing.T) {
	leak.Check(t)
	s := start(t, embedded.Config{})
	p := path(t, s)
	store := connect(t, p.Addrs())
	store.Timeout = time.Minute // whoever waits for an answer takes as long
	storetest.Put(t, store, "k", "1", dcs.Version{})
	// The client stays open: what a watch leaves behind must not wait for its end.
	leak.Check(t, "pgconvoy/dcs/etcd.", "etcd/client/v3.(*watch")
	for i := range 60 {
		if i == 40 {
			p.Cut() // and without a server
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

func TestWatchLeftWithoutAServer(t *testing.T) {
	leak.Check(t)
	s := start(t, embedded.Config{})
	p := path(t, s)
	store := connect(t, p.Addrs())
	leak.Check(t, "pgconvoy/dcs/etcd.", "etcd/client/v3.(*watch") // while the client stays open
	for snap, err := range store.Watch(t.Context(), dir) {
		if err != nil {
			t.Fatal(err)
		}
		if storetest.Stale(snap) {
			break
		}
		p.Cut()
	}
}

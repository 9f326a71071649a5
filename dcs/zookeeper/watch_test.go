package zookeeper_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/zookeeper"
	"github.com/pgconvoy/pgconvoy/internal/leak"
	"github.com/pgconvoy/pgconvoy/internal/storetest"
)

// A connection cannot give a watch back: a thousand that were opened and left leave no more than one would.
func TestWatchersDoNotPileUp(t *testing.T) {
	leak.Check(t)
	servers := storetest.ZooKeeper(t, 1, nil)
	conn := dial(t, within, servers.Addrs()...)
	s := store(conn)
	for _, name := range []string{"a", "b", "c/d"} {
		storetest.Put(t, s, name, "1", dcs.Version{})
	}
	open := func(dir string) {
		for snap, err := range s.Watch(t.Context(), dir) {
			if err != nil {
				t.Fatal(err)
			}
			if snap.Known() && snap.Stale == nil {
				return
			}
		}
	}
	open(dir)
	open("/absent")
	client, server := watchers(conn), watchCount(t, servers.Addrs()[0])
	if server == 0 || client == 0 {
		t.Fatalf("%d watches in the client, %d in the server", client, server)
	}
	for range 500 {
		open(dir)
		open("/absent")
	}
	now, there := watchers(conn), watchCount(t, servers.Addrs()[0])
	t.Logf("%d watches in the client and %d in the server after one, %d and %d after 1000", client, server, now, there)
	if now != client || there != server {
		t.Errorf("%d watches in the client and %d in the server after one, %d and %d after 1000", client, server, now, there)
	}
	// They work for whoever comes next.
	f := storetest.Follow(t, s)
	f.Until("fresh", storetest.Fresh("a=1 b=1 c/d=1"))
	storetest.Put(t, s, "c/e", "2", dcs.Version{})
	f.Until("written", storetest.Fresh("a=1 b=1 c/d=1 c/e=2"))
}

// watchers counts the channels that a connection keeps.
func watchers(conn *zk.Conn) (n int) {
	all := reflect.ValueOf(conn).Elem().FieldByName("watchers")
	for _, path := range all.MapKeys() {
		n += all.MapIndex(path).Len()
	}
	return n
}

// watchCount asks a server how many watches it has.
func watchCount(t testing.TB, addr netip.AddrPort) (n int) {
	t.Helper()
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(within))
	if _, err := io.WriteString(conn, "mntr"); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	_, count, _ := strings.Cut(string(b), "zk_watch_count\t")
	if _, err := fmt.Sscan(count, &n); err != nil {
		t.Fatalf("no watch count: %s", b)
	}
	return n
}

// The servers change under a watch, and each may be behind the last one: nothing goes back, nothing is lost.
func TestWatchMovesBetweenServers(t *testing.T) {
	leak.Check(t)
	servers := storetest.ZooKeeper(t, 3, nil)
	paths := servers.Paths(t)
	conn := dial(t, within, paths.Addrs()...)
	s, other := store(conn), connect(t, servers.Addrs()...)
	v := storetest.Put(t, other, "k", "0", dcs.Version{})
	f := storetest.Follow(t, s)
	f.Until("fresh", storetest.Fresh("k=0"))
	const moves, writes = 12, 20
	var last dcs.Version
	seen := map[string]bool{}
	for i := range moves {
		at := slices.IndexFunc(paths.Addrs(), func(a netip.AddrPort) bool { return a.String() == conn.Server() })
		seen[conn.Server()] = true
		heal := paths[at].Cut()
		for j := range writes {
			if j%5 == 4 { // made again under the watch
				if err := other.Delete(t.Context(), dir+"/k", v); err != nil {
					t.Fatal(err)
				}
				v = dcs.Version{}
			}
			v = storetest.Put(t, other, "k", fmt.Sprint(i, ".", j), v)
		}
		f.Until(fmt.Sprint("complete after move ", i), func(snap dcs.Snapshot) bool {
			e, ok := snap.Get(dir + "/k")
			if ok && (e.Version.Created < last.Created || e.Version.Created == last.Created && e.Version.Modified < last.Modified) {
				t.Errorf("went back from %v to %v", last, e.Version)
			}
			if ok {
				last = e.Version
			}
			return snap.Stale == nil && e.Version == v
		})
		heal()
	}
	if len(seen) < 2 {
		t.Errorf("it was connected to %d servers only", len(seen))
	}
}

// Whoever may not read learns that, and not that there is nothing.
func TestAccessControl(t *testing.T) {
	leak.Check(t)
	servers := storetest.ZooKeeper(t, 1, nil)
	conn := dial(t, ttl, servers.Addrs()...)
	if err := conn.AddAuth("digest", []byte("owner:secret")); err != nil {
		t.Fatal(err)
	}
	owner, stranger := store(conn), connect(t, servers.Addrs()...)
	owner.ACL = append(zk.DigestACL(zk.PermAll, "owner", "secret"), zk.WorldACL(zk.PermRead)...)
	v := storetest.Put(t, owner, "deep/k", "1", dcs.Version{})

	// Reading is enough to watch. Of what it may not read any more it is told nothing: the next confirmation finds out.
	stranger.Reconfirm = 200 * time.Millisecond
	f := storetest.Follow(t, stranger)
	f.Until("fresh", storetest.Fresh("deep/k=1"))
	for name, write := range map[string]func() error{
		"put":         func() error { _, err := stranger.Put(t.Context(), dir+"/deep/k", nil, v); return err },
		"put new":     func() error { _, err := stranger.Put(t.Context(), dir+"/new", nil, dcs.Version{}); return err },
		"put new/one": func() error { _, err := stranger.Put(t.Context(), dir+"/new/one", nil, dcs.Version{}); return err },
		"delete":      func() error { return stranger.Delete(t.Context(), dir+"/deep/k", v) },
	} {
		err := write()
		if errors.Is(err, dcs.ErrUnknown) || errors.Is(err, dcs.ErrConflict) {
			t.Errorf("%s: %v", name, err)
		}
		wantError(t, err, zk.ErrNoAuth, dir, "not applied", "rights")
	}

	// The rights are taken away under the watch.
	if _, err := conn.SetACL(dir+"/deep/k", zk.DigestACL(zk.PermAll, "owner", "secret"), -1); err != nil {
		t.Fatal(err)
	}
	storetest.Put(t, owner, "deep/k", "2", v)
	wantError(t, f.End(), zk.ErrNoAuth, dir+"/deep/k")
	_, err := stranger.Get(t.Context(), dir)
	wantError(t, err, zk.ErrNoAuth, dir)
	for _, err := range stranger.Watch(t.Context(), dir) {
		wantError(t, err, zk.ErrNoAuth, dir)
	}
	if snap := get(t, owner); storetest.Content(snap) != "deep/k=2" {
		t.Errorf("the owner reads %v", storetest.Content(snap))
	}
}

// Servers swallow the event that a watcher may not read, and its watch with it. When it may again, it is armed again.
func TestSwallowedEvent(t *testing.T) {
	leak.Check(t)
	servers := storetest.ZooKeeper(t, 1, nil)
	conn := dial(t, ttl, servers.Addrs()...)
	awaitSession(t, conn)
	owner, stranger := store(conn), connect(t, servers.Addrs()...)
	if err := conn.AddAuth("digest", []byte("owner:secret")); err != nil {
		t.Fatal(err)
	}
	stranger.Reconfirm = 4 * time.Second
	v := storetest.Put(t, owner, "k", "1", dcs.Version{})
	f := storetest.Follow(t, stranger)
	f.Until("fresh", storetest.Fresh("k=1"))
	armed := watchCount(t, servers.Addrs()[0])
	acl := func(acl []zk.ACL) {
		t.Helper()
		if _, err := conn.SetACL(dir+"/k", acl, -1); err != nil {
			t.Fatal(err)
		}
	}
	f.Until("confirmed", storetest.Fresh("k=1")) // there is time until the next confirmation
	acl(zk.DigestACL(zk.PermAll, "owner", "secret"))
	v = storetest.Put(t, owner, "k", "2", v)
	if n := watchCount(t, servers.Addrs()[0]); n != armed-1 {
		t.Skipf("%d watches of %d: this server tells whoever asked", n, armed)
	}
	acl(zk.WorldACL(zk.PermAll))
	f.Until("told by the confirmation", storetest.Fresh("k=2"))
	await(t, "armed again", func() bool { return watchCount(t, servers.Addrs()[0]) == armed })
	storetest.Put(t, owner, "k", "3", v)
	f.Until("told", storetest.Fresh("k=3"))
}

// Patroni's client makes parents with empty data, this package without any: both are no keys, and a leaf is.
func TestParentsAreNoKeys(t *testing.T) {
	leak.Check(t)
	servers := storetest.ZooKeeper(t, 1, nil)
	conn := dial(t, ttl, servers.Addrs()...)
	awaitSession(t, conn)
	s := store(conn)
	f := storetest.Follow(t, s)
	f.Until("known to be empty", storetest.Fresh(""))
	make := func(path string, data []byte) {
		t.Helper()
		if _, err := conn.Create(path, data, 0, zk.WorldACL(zk.PermAll)); err != nil {
			t.Fatal(err)
		}
	}
	both := func(want string) {
		t.Helper()
		if got := storetest.Content(get(t, s)); got != want {
			t.Errorf("read %q, want %q", got, want)
		}
		f.Until(want, storetest.Fresh(want))
	}
	make(dir, []byte{})
	make(dir+"/members", []byte{})
	both("members=")
	make(dir+"/members/n1", []byte("x"))
	both("members/n1=x")
	make(dir+"/bare", nil)
	make(dir+"/empty", []byte{})
	both("empty= members/n1=x")

	// A key is made over what is no key; over a key it is not.
	storetest.Put(t, s, "bare", "1", dcs.Version{})
	v := storetest.Put(t, s, "members", "2", dcs.Version{})
	both("bare=1 empty= members=2 members/n1=x")
	for _, name := range []string{"empty", "members", "bare"} {
		_, err := s.Put(t.Context(), dir+"/"+name, nil, dcs.Version{})
		wantError(t, err, dcs.ErrConflict, dir+"/"+name)
	}
	if e, _ := f.Last.Get(dir + "/members"); e.Version != v {
		t.Errorf("put returned %v, the watch has %v", v, e.Version)
	}
	if err := conn.Delete(dir+"/members/n1", -1); err != nil {
		t.Fatal(err)
	}
	both("bare=1 empty= members=2")
	if err := s.Delete(t.Context(), dir+"/members", v); err != nil {
		t.Fatal(err)
	}
	both("bare=1 empty=")
}

// A root is put before all keys and seen by nobody.
func TestRoot(t *testing.T) {
	leak.Check(t)
	servers := storetest.ZooKeeper(t, 1, nil)
	conn := dial(t, ttl, servers.Addrs()...)
	s := store(conn)
	s.Root = "/chroot/of mine"
	f := storetest.Follow(t, s)
	f.Until("known to be empty", storetest.Fresh(""))
	v := storetest.Put(t, s, "a/b", "1", dcs.Version{})
	f.Until("written", storetest.Fresh("a/b=1"))
	if e, ok := get(t, s).Get(dir + "/a/b"); !ok || e.Version != v || e.Key != dir+"/a/b" {
		t.Errorf("read %v", e)
	}
	if got, _, err := conn.Get(s.Root + dir + "/a/b"); err != nil || string(got) != "1" {
		t.Errorf("below the root is %q: %v", got, err)
	}
	if err := s.Lease(t.Context(), func(_ context.Context, w dcs.Writer) error {
		storetest.Put(t, w, "leased", "1", dcs.Version{})
		f.Until("leased", storetest.Fresh("a/b=1 leased=1"))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	f.Until("released", storetest.Fresh("a/b=1"))
	if err := s.Delete(t.Context(), dir+"/a/b", v); err != nil {
		t.Fatal(err)
	}
	f.Until("deleted", storetest.Fresh(""))
}

// The root and the keys are checked before anything is sent, and the error names the field.
func TestArguments(t *testing.T) {
	conn := dial(t, ttl, netip.MustParseAddrPort("127.0.0.1:1"))
	s := store(conn)
	_, err := s.Put(t.Context(), "/a/\U0001F600", nil, dcs.Version{})
	wantError(t, err, dcs.ErrInvalid, "key", "\U0001F600")
	_, err = s.Get(t.Context(), "/a/\u0085")
	wantError(t, err, dcs.ErrInvalid, "dir")
	for _, root := range []string{"/", "chroot", "/a/", "/\uf8ff"} {
		s := zookeeper.New(conn)
		s.Root, s.TTL = root, ttl
		_, err := s.Get(t.Context(), dir)
		wantError(t, err, dcs.ErrInvalid, "Root")
		_, err = s.Put(t.Context(), dir, nil, dcs.Version{})
		wantError(t, err, dcs.ErrInvalid, "Root")
		wantError(t, s.Delete(t.Context(), dir, dcs.Version{Created: 1}), dcs.ErrInvalid, "Root")
		wantError(t, s.Lease(t.Context(), nil), dcs.ErrInvalid, "Root")
		for _, err := range s.Watch(t.Context(), dir) {
			wantError(t, err, dcs.ErrInvalid, "Root")
		}
	}
}

// Without any server nobody waits for ever, and the reason says what to check.
func TestNoServer(t *testing.T) {
	leak.Check(t)
	s := connect(t, netip.MustParseAddrPort("127.0.0.1:1"))
	s.Timeout = 200 * time.Millisecond
	f := storetest.Follow(t, s)
	_, err := s.Put(t.Context(), dir+"/k", nil, dcs.Version{})
	wantError(t, err, context.DeadlineExceeded, dir+"/k", "not applied", "127.0.0.1:1")
	_, err = s.Get(t.Context(), dir)
	wantError(t, err, context.DeadlineExceeded, dir, "127.0.0.1:1")
	wantError(t, s.Lease(t.Context(), nil), context.DeadlineExceeded, "127.0.0.1:1")
	f.Until("stale", storetest.Stale)
	if f.Last.Known() || !strings.Contains(f.Last.Stale.Error(), "127.0.0.1:1") {
		t.Errorf("known %v, stale: %v", f.Last.Known(), f.Last.Stale)
	}
}

// When the caller closes the connection a watch ends with that as its reason, and calls fail at once.
func TestClosedConnection(t *testing.T) {
	leak.Check(t)
	servers := storetest.ZooKeeper(t, 1, nil)
	conn := dial(t, ttl, servers.Addrs()...)
	s := store(conn)
	s.Timeout = within // not what ends the calls
	storetest.Put(t, s, "k", "1", dcs.Version{})
	f := storetest.Follow(t, s)
	f.Until("fresh", storetest.Fresh("k=1"))
	conn.Close()
	if err := f.End(); !strings.Contains(err.Error(), "the connection was closed") {
		t.Errorf("watch ended with %v", err)
	}
	begin := time.Now()
	_, err := s.Put(t.Context(), dir+"/k", nil, dcs.Version{})
	if err == nil || errors.Is(err, dcs.ErrUnknown) || !strings.Contains(err.Error(), "the connection was closed") {
		t.Errorf("put: %v", err)
	}
	if _, err := s.Get(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "the connection was closed") {
		t.Errorf("get: %v", err)
	}
	if err := s.Lease(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "the connection was closed") {
		t.Errorf("lease: %v", err)
	}
	for _, err := range s.Watch(t.Context(), dir) {
		if err != nil && !strings.Contains(err.Error(), "the connection was closed") {
			t.Errorf("watch: %v", err)
		}
	}
	t.Logf("refused within %v", time.Since(begin))
	if time.Since(begin) >= within {
		t.Error("the calls waited for their deadlines")
	}
}

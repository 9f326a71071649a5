package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/storetest"
)

func open(t *testing.T) *Store {
	t.Helper()
	servers := storetest.ZooKeeper(t, 1, nil)
	conn, events, err := zk.Connect([]string{servers.Addrs()[0].String()}, 10*time.Second, zk.WithLogger(silent{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		for range events {
		}
	})
	return New(conn)
}

// What a read begins with is agreed upon by the servers: it is a transaction, and has a number. A sync has none.
func TestBarrierIsATransaction(t *testing.T) {
	s := open(t)
	made := func(key string) uint64 {
		t.Helper()
		v, err := s.Put(t.Context(), "/d/"+key, nil, dcs.Version{})
		if err != nil {
			t.Fatal(err)
		}
		return v.Created
	}
	for i, c := range []struct {
		name string
		pass func(context.Context) (int64, error)
		want uint64
	}{{"barrier", s.barrier, 1}, {"sync", s.sync, 0}} {
		before := made(fmt.Sprint("before", i))
		if _, err := c.pass(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := made(fmt.Sprint("after", i)) - before - 1; n != c.want {
			t.Errorf("%s: %d transactions, want %d", c.name, n, c.want)
		}
	}
}

// A key that is made again between the look and the write: the data version says nothing, the answer does.
func TestSetOverAKeyThatWasMadeAgain(t *testing.T) {
	s := open(t)
	v, err := s.Put(t.Context(), "/d/k", []byte("theirs"), dcs.Version{})
	if err != nil {
		t.Fatal(err)
	}
	told := func(err error) {
		t.Helper()
		if !errors.Is(err, dcs.ErrUnknown) || !strings.Contains(err.Error(), "/d/k") || !strings.Contains(err.Error(), "overwritten") {
			t.Error(err)
		}
	}
	session := s.conn.SessionID()
	seen := look{&zk.Stat{Czxid: int64(v.Created) - 1, Version: int32(v.Modified)}, session}
	_, err = s.set(t.Context(), "/d/k", []byte("mine"), seen)
	told(err)
	seen.Version++ // that of the first write
	_, err = s.take(t.Context(), "/d/k", []byte("mine"), seen, &owner{s: s, session: session, keys: map[string]owned{}, held: t.Context()})
	told(err)
	seen.session--
	if _, err = s.set(t.Context(), "/d/k", nil, seen); !errors.Is(err, errNewSession) || errors.Is(err, dcs.ErrUnknown) {
		t.Errorf("prepared in another session: %v", err)
	}
}

// A leased key that the client has sent in a later session is noticed, refused, and removed again.
func TestKeyOfALaterSession(t *testing.T) {
	s := open(t)
	if _, err := s.Put(t.Context(), "/d/k", nil, dcs.Version{}); err != nil {
		t.Fatal(err)
	}
	conn := s.conn
	for name, o := range map[string]*owner{
		"of a later session":         {s: s, session: conn.SessionID() - 1},
		"after the end of the lease": {s: s, session: conn.SessionID(), over: true},
	} {
		if _, err := conn.Create("/d/late", []byte("x"), zk.FlagEphemeral, zk.WorldACL(zk.PermAll)); err != nil {
			t.Fatal(err)
		}
		_, stat, err := conn.Exists("/d/late")
		if err != nil {
			t.Fatal(err)
		}
		if err := o.made(t.Context(), "/d/late", []byte("x"), stat, nil); !errors.Is(err, dcs.ErrLeaseLost) || !refused(err) {
			t.Errorf("%s: %v", name, err)
		}
		awaitGone(t, conn)
	}
}

func awaitGone(t *testing.T, conn *zk.Conn) {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		found, _, err := conn.Exists("/d/late")
		if err != nil || time.Since(begin) > 30*time.Second {
			t.Fatalf("it is there: %v, %v", found, err)
		}
		if !found {
			return
		}
	}
}

// Arms that have fired are not kept for ever.
func TestSpentArmsAreDropped(t *testing.T) {
	var a arms
	for i := range 10_000 {
		c := make(chan zk.Event, 1)
		a.put(spot{key: string(rune(i))}, c)
		c <- zk.Event{}
		close(c)
	}
	if len(a.live) > 2048 {
		t.Errorf("%d spent arms are kept", len(a.live))
	}
}

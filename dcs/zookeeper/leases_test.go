package zookeeper_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/leak"
	"github.com/pgconvoy/pgconvoy/internal/storetest"
)

// When a session expires its leases are lost, the watch keeps its content and says why, and all goes on in another one.
func TestSessionExpires(t *testing.T) {
	leak.Check(t)
	servers := storetest.ZooKeeper(t, 1, nil)
	operator := dial(t, within, servers.Addrs()...)
	other := store(operator)
	paths := servers.Paths(t)
	conn := dial(t, ttl, paths.Addrs()...)
	s := store(conn)
	v := storetest.Put(t, s, "k", "1", dcs.Version{})
	f := storetest.Follow(t, s)
	f.Until("fresh", storetest.Fresh("k=1"))
	session := conn.SessionID()
	err := s.Lease(t.Context(), func(ctx context.Context, w dcs.Writer) error {
		storetest.Put(t, w, "mine", "1", dcs.Version{})
		f.Until("with the lease's key", storetest.Fresh("k=1 mine=1"))
		heal := paths.Cut()
		f.Until("stale", storetest.Stale)
		<-ctx.Done()
		if found, _, err := operator.Exists(dir + "/mine"); !found || err != nil {
			t.Errorf("the lease's key went before its end was told: %v", err)
		}
		_, err := w.Put(t.Context(), dir+"/late", nil, dcs.Version{})
		wantError(t, err, dcs.ErrLeaseLost, "/late", "not applied")
		await(t, "without the lease's key", func() bool {
			found, _, err := operator.Exists(dir + "/mine")
			return err == nil && !found
		})
		storetest.Put(t, other, "k", "2", v)
		if storetest.Content(f.Last) != "k=1 mine=1" {
			t.Errorf("content is %v", storetest.Content(f.Last))
		}
		heal()
		return ctx.Err()
	})
	wantError(t, err, dcs.ErrLeaseLost)
	f.Until("fresh", storetest.Fresh("k=2"))
	if conn.SessionID() == session {
		t.Error("the session lives")
	}
	if err := s.Lease(t.Context(), func(_ context.Context, w dcs.Writer) error {
		storetest.Put(t, w, "mine", "2", dcs.Version{})
		f.Until("with another lease's key", storetest.Fresh("k=2 mine=2"))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	f.Until("released", storetest.Fresh("k=2"))
}

// A lease that was given up leaves no keys although its session lives on.
func TestLostLeaseOfALivingSession(t *testing.T) {
	leak.Check(t)
	servers := storetest.ZooKeeper(t, 1, nil)
	paths := servers.Paths(t)
	conn := dial(t, within, paths.Addrs()...)
	s := store(conn)
	s.TTL = 2 * time.Second // the session has longer
	storetest.Put(t, s, "k", "1", dcs.Version{})
	session := conn.SessionID()
	var heal func()
	err := s.Lease(t.Context(), func(ctx context.Context, w dcs.Writer) error {
		storetest.Put(t, w, "a", "1", dcs.Version{})
		storetest.Put(t, w, "b", "1", dcs.Version{})
		heal = paths.Cut()
		<-ctx.Done()
		return context.Cause(ctx)
	})
	wantError(t, err, dcs.ErrLeaseLost)
	if snap := get(t, connect(t, servers.Addrs()...)); storetest.Content(snap) != "a=1 b=1 k=1" {
		t.Errorf("content is %v", storetest.Content(snap))
	}
	heal()
	await(t, "without the lease's keys", func() bool { return storetest.Content(get(t, s)) == "k=1" })
	if conn.SessionID() != session {
		t.Error("the session has ended; it was to live")
	}
}

// A put of a lease whose request arrives after the lease's end leaves nothing.
func TestLateLeasedPut(t *testing.T) {
	leak.Check(t)
	servers := storetest.ZooKeeper(t, 1, nil)
	paths := servers.Paths(t)
	s := connect(t, paths.Addrs()...)
	other := connect(t, servers.Addrs()...)
	storetest.Put(t, s, "k", "1", dcs.Version{})
	var heal func()
	err := s.Lease(t.Context(), func(ctx context.Context, w dcs.Writer) error {
		heal = paths.Halt()
		ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		_, err := w.Put(ctx, dir+"/late", []byte("x"), dcs.Version{})
		wantError(t, err, dcs.ErrUnknown, "/late")
		wantError(t, err, context.DeadlineExceeded)
		return err
	})
	wantError(t, err, dcs.ErrUnknown)
	heal()
	operator := dial(t, ttl, servers.Addrs()...)
	awaitSession(t, operator)
	var stat *zk.Stat
	await(t, "made, and removed again", func() bool {
		_, stat, err = operator.Exists(dir)
		return err == nil && stat.Cversion >= 3
	})
	if snap := get(t, other); storetest.Content(snap) != "k=1" || stat.Cversion != 3 {
		t.Errorf("content is %v, after %d changes of the directory", storetest.Content(snap), stat.Cversion)
	}
}

// A leased put takes a key over from another session, which does not take it along when it ends.
func TestTakeOverFromAnotherSession(t *testing.T) {
	leak.Check(t)
	servers := storetest.ZooKeeper(t, 1, nil)
	s := connect(t, servers.Addrs()...)
	first := dial(t, ttl, servers.Addrs()...)
	err := store(first).Lease(t.Context(), func(_ context.Context, w dcs.Writer) error {
		v := storetest.Put(t, w, "k", "first", dcs.Version{})
		return s.Lease(t.Context(), func(_ context.Context, w dcs.Writer) error {
			v2 := storetest.Put(t, w, "k", "second", v)
			if v2.Created <= v.Created {
				t.Errorf("token %d after %d", v2.Created, v.Created)
			}
			first.Close()
			v3 := storetest.Put(t, w, "k", "second again", v2)
			if v3.Created != v2.Created {
				t.Errorf("its own key was made anew: %v after %v", v3, v2)
			}
			if snap := get(t, s); storetest.Content(snap) != "k=second again" {
				t.Errorf("content is %v", storetest.Content(snap))
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	if snap := get(t, s); storetest.Content(snap) != "" {
		t.Errorf("content is %v", storetest.Content(snap))
	}
}

func TestLeaseNeedsTheTTL(t *testing.T) {
	servers := storetest.ZooKeeper(t, 1, nil)
	s := connect(t, servers.Addrs()...)
	for _, ttl := range []time.Duration{0, time.Second - 1, -1} {
		s.TTL = ttl
		err := s.Lease(t.Context(), func(context.Context, dcs.Writer) error { return errors.New("called") })
		wantError(t, err, dcs.ErrInvalid, "TTL")
	}
}

// What cannot be a lease's key is refused, and changes nothing.
func TestKeysThatCannotBelongToALease(t *testing.T) {
	servers := storetest.ZooKeeper(t, 1, nil)
	s := connect(t, servers.Addrs()...)
	v := storetest.Put(t, s, "a", "1", dcs.Version{})
	storetest.Put(t, s, "a/b", "1", dcs.Version{})
	storetest.Put(t, s, "c/d", "1", dcs.Version{})
	err := s.Lease(t.Context(), func(_ context.Context, w dcs.Writer) error {
		storetest.Put(t, w, "mine", "1", dcs.Version{})
		for key, prev := range map[string]dcs.Version{"a": v, "c": {}, "mine/below": {}} {
			_, err := w.Put(t.Context(), dir+"/"+key, nil, prev)
			if err == nil || errors.Is(err, dcs.ErrUnknown) || errors.Is(err, dcs.ErrConflict) {
				t.Errorf("put %s: %v", key, err)
			}
			t.Log(err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if snap := get(t, s); storetest.Content(snap) != "a=1 a/b=1 c/d=1" {
		t.Errorf("content is %v", storetest.Content(snap))
	}
	wantError(t, s.Delete(t.Context(), dir+"/a", v), zk.ErrNotEmpty, "not applied", dir+"/a")
}

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

// An event that never came: the watch learns of it when it confirms its content.
func TestDeafWatchLearnsAtItsNextConfirmation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &memory.Store{Reconfirm: 7 * time.Second}
		client := s.Client()
		c := follow(t, client)
		<-c
		begin := time.Now()
		heal := client.Deafen()
		v := put(t, s, "/a/k", "1", dcs.Version{})
		put(t, s, "/a/k", "2", v)
		if e, _ := (<-c).Get("/a/k"); string(e.Value) != "2" || time.Since(begin) != 7*time.Second {
			t.Errorf("%q after %v", e.Value, time.Since(begin))
		}
		heal()
		put(t, s, "/a/l", "1", dcs.Version{})
		if _, ok := (<-c).Get("/a/l"); !ok || time.Since(begin) != 7*time.Second {
			t.Errorf("there %v after %v", ok, time.Since(begin))
		}
	})
}

// What was sent before the client was stopped arrives when it is continued, long after its caller has given up; another
// client that was quicker makes it a conflict.
func TestHaltedWriteArrivesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &memory.Store{Timeout: time.Second}
		client := s.Client()
		mine, contested := put(t, s, "/a/mine", "1", dcs.Version{}), put(t, s, "/a/contested", "1", dcs.Version{})
		heal := client.Halt()
		for key, v := range map[string]dcs.Version{"/a/mine": mine, "/a/contested": contested} {
			if _, err := client.Put(t.Context(), key, []byte("late"), v); !errors.Is(err, dcs.ErrUnknown) {
				t.Error(err)
			}
		}
		contested = put(t, s, "/a/contested", "2", contested)
		time.Sleep(time.Hour)
		if e := read(t, s, "/a/mine"); e.Version != mine {
			t.Errorf("it has arrived: %q", e.Value)
		}
		heal()
		if e := read(t, s, "/a/mine"); string(e.Value) != "late" {
			t.Errorf("it has not arrived: %q", e.Value)
		}
		if e := read(t, s, "/a/contested"); e.Version != contested {
			t.Errorf("overwritten: %q", e.Value)
		}
	})
}

// A muted client's writes are carried out, a cut one's are not; what is under way when the path is cut is unknown.
func TestOutcomes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New()
		client := s.Client()
		unmute := client.Mute()
		done := make(chan error, 1)
		go func() {
			_, err := client.Put(t.Context(), "/a/muted", nil, dcs.Version{})
			done <- err
		}()
		synctest.Wait()
		heal := client.Cut()
		if err := <-done; !errors.Is(err, dcs.ErrUnknown) {
			t.Errorf("under way: %v", err)
		}
		if _, err := client.Put(t.Context(), "/a/cut", nil, dcs.Version{}); err == nil || errors.Is(err, dcs.ErrUnknown) {
			t.Errorf("cut: %v", err)
		}
		if e := read(t, s, "/a/muted"); e.Version == (dcs.Version{}) {
			t.Error("a muted write was not carried out")
		}
		if e := read(t, s, "/a/cut"); e.Version != (dcs.Version{}) {
			t.Error("a write that was refused was carried out")
		}
		heal()
		unmute()
		put(t, client, "/a/healed", "1", dcs.Version{})
	})
}

// Another client does not suffer, and a fault may be in force twice.
func TestFaultsAreOfOneClient(t *testing.T) {
	s := memory.New()
	a, b := s.Client(), s.Client()
	first, second := a.Cut(), a.Cut()
	put(t, b, "/a/k", "1", dcs.Version{})
	first()
	first() // again does nothing
	if _, err := a.Get(t.Context(), "/a"); err == nil {
		t.Error("healed by half")
	}
	second()
	if e := read(t, a, "/a/k"); string(e.Value) != "1" {
		t.Errorf("%q", e.Value)
	}
}

// A restored store is as it was, leases included; those that were granted since are not known any more.
func TestRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &memory.Store{TTL: 10 * time.Second}
		old := put(t, s, "/a/k", "1", dcs.Version{})
		restore := s.Backup()
		err := s.Lease(t.Context(), func(ctx context.Context, w dcs.Writer) error {
			put(t, w, "/a/leased", "1", dcs.Version{})
			put(t, s, "/a/k", "2", old)
			restore()
			if e := read(t, s, "/a/k"); e.Version != old || string(e.Value) != "1" {
				t.Errorf("restored %q at %v", e.Value, e.Version)
			}
			if e := read(t, s, "/a/leased"); e.Version != (dcs.Version{}) {
				t.Error("what was written since is there")
			}
			_, err := w.Put(ctx, "/a/leased", nil, dcs.Version{})
			if !errors.Is(err, dcs.ErrLeaseLost) {
				t.Errorf("a put for a lease that the store does not know: %v", err)
			}
			<-ctx.Done()
			return ctx.Err()
		})
		if !errors.Is(err, dcs.ErrLeaseLost) {
			t.Error(err)
		}
	})
}

func read(t *testing.T, r dcs.Reader, key string) dcs.Entry {
	t.Helper()
	s, err := r.Get(t.Context(), "/a")
	if err != nil {
		t.Fatal(err)
	}
	e, _ := s.Get(key)
	return e
}

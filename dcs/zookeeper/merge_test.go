package zookeeper

import (
	"errors"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// unit is a watch whose readings the test gives, with what it has published.
func unit(t *testing.T) (w *watch, last *dcs.Snapshot) {
	t.Helper()
	last = &dcs.Snapshot{}
	w = newWatch(&Store{conn: closedConn(t)}, "/d", func(s dcs.Snapshot) { *last = s })
	w.restart(t.Context())
	t.Cleanup(func() {
		w.stop()
		w.tasks.Wait()
	})
	return w, last
}

// give answers a reading that the watch wants; it must want it.
func (w *watch) give(t *testing.T, r result) {
	t.Helper()
	if r.round = w.round; !r.synced {
		if j := w.jobs[r.at]; j == nil {
			t.Fatalf("%v is not wanted", r.at)
		} else {
			j.running = true
		}
	}
	w.running++
	if err := w.outcome(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

func (w *watch) sync(t *testing.T, session int64) {
	t.Helper()
	w.pass = time.Now()
	w.give(t, result{synced: true, session: session})
}

func listing(key string, czxid, pzxid int64, below ...string) result {
	return result{at: spot{key, names}, armed: armed{reading: reading{names: below, stat: &zk.Stat{Czxid: czxid, Pzxid: pzxid}}}}
}

func value(key string, czxid, mzxid, pzxid int64) result {
	stat := &zk.Stat{Czxid: czxid, Mzxid: mzxid, Pzxid: pzxid}
	return result{at: spot{key, data}, armed: armed{reading: reading{data: []byte("x"), stat: stat}}}
}

// all answers a reading of everything: /d with k, written at that moment.
func (w *watch) all(t *testing.T, mzxid int64) {
	t.Helper()
	w.give(t, listing("/d", 1, 2, "k"))
	w.give(t, value("/d/k", 2, mzxid, 2))
	if w.jobs[spot{"/d/k", names}] != nil {
		w.give(t, listing("/d/k", 2, 2))
	}
}

// Only what was read after the sync confirms: not the answer to something else that comes before it.
func TestConfirmationNeedsItsOwnReadings(t *testing.T) {
	w, last := unit(t)
	w.sync(t, 7)
	if last.Known() {
		t.Fatal("known before anything was read")
	}
	w.all(t, 2)
	if !last.Known() || last.Stale != nil {
		t.Fatalf("known %v, stale %v", last.Known(), last.Stale)
	}
	at := last.At
	w.stale(errors.New("why"))
	w.pass = time.Now() // the sync is under way
	w.want(spot{"/d/k", data}, false)
	w.give(t, value("/d/k", 2, 5, 2))
	if e, _ := last.Get("/d/k"); last.Stale == nil || last.At != at || string(e.Value) != "x" {
		t.Errorf("stale %v, at %v", last.Stale, last.At)
	}
	w.give(t, result{synced: true, session: 7})
	w.all(t, 5)
	if last.Stale != nil || !last.At.After(at) {
		t.Errorf("stale %v, at %v, was %v", last.Stale, last.At, at)
	}
}

// In a new session everything is read before anything of it is shown; what the servers say then counts, also if it is older.
func TestNewSessionIsReadWhole(t *testing.T) {
	w, last := unit(t)
	w.sync(t, 7)
	w.all(t, 9)
	first := *last
	w.restart(t.Context())
	w.stale(errNewSession)
	w.sync(t, 8)
	w.give(t, listing("/d", 1, 2, "k"))
	for key := range last.Changed(first) {
		t.Errorf("%s changed before all was read", key)
	}
	if last.Stale == nil {
		t.Error("fresh before all was read")
	}
	w.give(t, value("/d/k", 2, 3, 2))
	w.give(t, listing("/d/k", 2, 2))
	if last.Stale != nil || !last.At.After(first.At) {
		t.Errorf("stale %v", last.Stale)
	}
}

// An arm that did not fire although what it watches has changed is given up, and the node is read with a new one.
func TestDeadArm(t *testing.T) {
	w, _ := unit(t)
	w.sync(t, 7)
	w.give(t, listing("/d", 1, 2, "k"))
	at := spot{"/d/k", data}
	quiet := w.s.arms.put(at, make(chan zk.Event, 1))
	r := value("/d/k", 2, 2, 2)
	r.arm = quiet
	w.give(t, r)
	w.want(at, false)
	w.give(t, r) // nothing has changed
	if w.s.arms.get(at) != quiet || w.jobs[at] != nil {
		t.Fatal("a good arm was given up")
	}
	w.want(at, false)
	r = value("/d/k", 2, 3, 2)
	r.arm = quiet
	w.give(t, r)
	if w.s.arms.get(at) != nil || w.jobs[at] == nil {
		t.Error("a dead arm was kept")
	}
}

// Watches that fire are not relied on: everything is read again within Reconfirm.
func TestReadingsAreRepeated(t *testing.T) {
	w, last := unit(t)
	w.s.Reconfirm = time.Minute
	w.sync(t, 7)
	w.all(t, 2)
	if d := time.Until(w.readAt); !last.Known() || w.readAt.IsZero() || d > time.Minute {
		t.Errorf("known %v, the next reading is due in %v (at %v)", last.Known(), d, w.readAt)
	}
}

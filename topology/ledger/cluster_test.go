//go:build linux

package ledger_test

import (
	"fmt"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/leak"
	"github.com/pgconvoy/pgconvoy/topology/ledger"
)

// A primary hands over, and everybody follows: on another timeline everything
// is as it should be.
func TestPromotion(t *testing.T) {
	a, b := pair(t)
	route := newRelay(t, a.address())
	l := beginThrough(t, b, route.dsn(), ledger.Load{Writers: 4, Readers: 2, Read: b.dsn()})
	acknowledged(t, l, 100)
	answered(t, l, 20)
	l.Mark("move")
	a.stop(t, syscall.SIGINT) // the standby gets everything before it ends
	b.exec(t, "select pg_promote()")
	route.to(b.address())
	acknowledged(t, l, 100)
	answered(t, l, 20)
	r := end(t, l)
	sound(t, r)
	if fmt.Sprint(r.Timelines) != "[1 2]" || fmt.Sprint(r.Events[0].Timelines) == "[1]" {
		t.Errorf("Timelines %v, after the move %v", r.Timelines, r.Events[0].Timelines)
	}
	var standby, primary int
	for a := range r.Attempts() {
		switch {
		case a.Outcome == ledger.Unknown && a.Present != (a.Timeline != 0):
			t.Errorf("the row of %+v should tell its timeline", a)
		case a.Outcome == ledger.Acknowledged && a.Read && a.Standby:
			standby++
		case a.Outcome == ledger.Acknowledged && a.Read:
			primary++
			if a.Timeline != 2 {
				t.Errorf("%+v was answered by the primary of timeline 2", a)
			}
		}
	}
	if standby == 0 || primary == 0 {
		t.Errorf("%d reads answered by a standby, %d by a primary: want both", standby, primary)
	}
}

// A primary goes on though another one was promoted, and some clients stay
// with it. At last all return to it.
func TestTwoPrimaries(t *testing.T) {
	a, b := pair(t)
	route := newRelay(t, a.address())
	l := beginThrough(t, a, route.dsn(), ledger.Load{Writers: 4, Readers: 3})
	acknowledged(t, l, 100)
	answered(t, l, 20)
	const writers, readers = "query like 'insert%' and " + clients, "query like 'select s.standby%' and " + clients
	count := func(s *server, from string) int {
		n, err := strconv.Atoi(s.exec(t, "select count(*) from "+from))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}

	l.Mark("split")
	b.exec(t, "select pg_promote()")
	route.to(b.address())
	for _, some := range []string{writers, readers} {
		a.exec(t, "select pg_terminate_backend(pid) from (select pid from pg_stat_activity where "+some+" limit 2) chosen")
	}
	await(t, "nobody went to the new primary", func() bool {
		return count(b, "pgconvoy_ledger where timeline = 2") > 50 && count(b, "pg_stat_activity where "+readers) == 2
	})
	answered(t, l, 30) // ten of each, if they take turns
	old := count(a, "pgconvoy_ledger")
	await(t, "nobody stayed with the old primary", func() bool { return count(a, "pgconvoy_ledger") > old+50 })

	l.Mark("back")
	route.to(a.address())
	for _, some := range []string{writers, readers} {
		b.exec(t, "select pg_terminate_backend(pid) from pg_stat_activity where "+some)
	}
	await(t, "nobody came back", func() bool {
		return count(a, "pg_stat_activity where "+writers) == 4 && count(a, "pg_stat_activity where "+readers) == 3
	})
	acknowledged(t, l, 40)
	answered(t, l, 30)
	r := end(t, l)

	gone, stale, staleReads := 0, 0, 0
	for a := range r.Attempts() {
		if a.Outcome == ledger.Acknowledged && a.Timeline == 2 && !a.Read {
			gone++
		}
		if a.Stale && a.Timeline != 1 {
			t.Errorf("%+v: timeline 2 is not the older one", a)
		}
		if a.Stale && a.Read {
			staleReads++
		} else if a.Stale {
			stale++
		}
	}
	if r.Lost != gone || gone < 40 || r.Surplus != 0 {
		t.Errorf("Lost %d, Surplus %d; %d were acknowledged on the timeline that was left", r.Lost, r.Surplus, gone)
	}
	if r.Stale < 40 || r.Stale != stale || r.Reads.Stale < 20 || r.Reads.Stale != staleReads {
		t.Errorf("Stale %d, reads %d; %d and %d attempts", r.Stale, r.Reads.Stale, stale, staleReads)
	}
	split, back := r.Events[0], r.Events[1]
	if split.Back != 0 || back.Back == 0 || split.Reads.Back != 0 || back.Reads.Back == 0 {
		t.Errorf("Back %d then %d, of reads %d then %d", split.Back, back.Back, split.Reads.Back, back.Reads.Back)
	}
	if before := r.Window(r.From, split.From); before.Stale != 0 || before.Back != 0 || before.Reads.Stale != 0 {
		t.Errorf("before the split: %v", before)
	}
}

// A standby may lag: that is measured, and no fault.
func TestReadersSeeLag(t *testing.T) {
	const lag = 300 * time.Millisecond
	a, b := pair(t)
	l := beginThrough(t, a, a.dsn(), ledger.Load{Writers: 1, Readers: 1, Read: b.dsn()})
	acknowledged(t, l, 20)
	l.Mark("paused")
	b.exec(t, "select pg_wal_replay_pause()")
	await(t, "replay does not pause", func() bool { return b.exec(t, "select pg_get_wal_replay_pause_state()") == "paused" })
	acknowledged(t, l, 2) // the second is not there, and waits from now
	since := time.Now()
	await(t, "time stands still", func() bool { return time.Since(since) > lag })
	answered(t, l, 2) // the second one was started after that
	b.exec(t, "select pg_wal_replay_resume()")
	acknowledged(t, l, 10)
	r := end(t, l)
	sound(t, r)
	if r.Reads.Failed != 0 || r.Reads.Behind == 0 || r.Reads.Lag < lag {
		t.Errorf("%+v: want a lag of %v at least", r.Reads, lag)
	}
	if e := r.Events[0]; e.Reads.Lag != r.Reads.Lag {
		t.Errorf("the lag in the part is %v", e.Reads.Lag)
	}
	most := time.Duration(0)
	for a := range r.Attempts() {
		most = max(most, a.Behind)
		if a.Read && !a.Standby {
			t.Errorf("%+v was answered by a standby", a)
		}
	}
	if most != r.Reads.Lag {
		t.Errorf("the attempts lag %v at most, the report says %v", most, r.Reads.Lag)
	}
}

// A replica does not have the table at once.
func TestReadersAwaitTheTable(t *testing.T) {
	leak.Check(t, "topology/ledger.", "jackc/pgx")
	a, b := pair(t)
	for _, option := range []string{"", "&default_query_exec_mode=exec"} {
		route := newRelay(t, b.address())
		b.exec(t, "select pg_wal_replay_pause()")
		var l *ledger.Ledger
		var err error
		var wg sync.WaitGroup
		wg.Go(func() {
			l, err = ledger.Start(t.Context(), a.dsn(), ledger.Load{
				Writers: 1, Readers: 1, Read: route.dsn() + option, Table: fmt.Sprintf("new%d", len(option)),
			})
		})
		await(t, "the reader does not try again", func() bool { return route.accepted.Load() > 1 })
		b.exec(t, "select pg_wal_replay_resume()")
		wg.Wait()
		if err != nil {
			t.Fatal(err)
		}
		answered(t, l, 2)
		if r := end(t, l); r.Reads.Failed != 0 {
			t.Errorf("%v", r)
		}
	}
}

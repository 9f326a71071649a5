//go:build linux

package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgconvoy/pgconvoy/internal/leak"
	"github.com/pgconvoy/pgconvoy/topology/ledger"
)

const clients = "application_name = 'pgconvoy-ledger'"

// begin starts a ledger, and checks at the end of the test that nothing of it
// is left: no goroutine, no connection.
func begin(t *testing.T, s *server, load ledger.Load) *ledger.Ledger {
	t.Helper()
	return beginThrough(t, s, s.dsn(), load)
}

func beginThrough(t *testing.T, s *server, dsn string, load ledger.Load) *ledger.Ledger {
	t.Helper()
	leak.Check(t, "topology/ledger.", "jackc/pgx")
	l, err := ledger.Start(t.Context(), dsn, load)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_, _ = l.Stop(ctx) // for a test that failed before it did
		await(t, "connections are left on the server", func() bool {
			return s.exec(t, "select count(*) from pg_stat_activity where "+clients) == "0"
		})
	})
	return l
}

// end stops a ledger whose rows can be read.
func end(t *testing.T, l *ledger.Ledger) ledger.Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	r, err := l.Stop(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%v", r)
	if !r.Checked || r.Sent != r.Acknowledged+r.Failed || r.Reads.Sent != r.Reads.Answered+r.Reads.Failed {
		t.Errorf("Checked %t, Sent %d, Acknowledged %d, Failed %d, Reads %+v", r.Checked, r.Sent, r.Acknowledged, r.Failed, r.Reads)
	}
	return r
}

// await waits for a condition of the world; the bound is for broken code only.
func await(t *testing.T, complaint string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(complaint)
		}
	}
}

// acknowledged waits for n more acknowledged transactions.
func acknowledged(t *testing.T, l *ledger.Ledger, n int) {
	t.Helper()
	n += l.Now().Acknowledged
	await(t, "too few transactions are acknowledged", func() bool { return l.Now().Acknowledged >= n })
}

// answered waits for n more answered reads.
func answered(t *testing.T, l *ledger.Ledger, n int) {
	t.Helper()
	n += l.Now().ReadsAnswered
	await(t, "too few reads are answered", func() bool { return l.Now().ReadsAnswered >= n })
}

// silent waits until nothing was acknowledged for d.
func silent(t *testing.T, l *ledger.Ledger, d time.Duration) {
	t.Helper()
	await(t, "the service is never silent", func() bool { return l.Now().SinceAck >= d })
}

// sound fails a test whose service kept all promises and the report says no.
func sound(t *testing.T, r ledger.Report) {
	t.Helper()
	if r.Lost != 0 || r.Surplus != 0 || r.Back != 0 || r.Stale != 0 || r.Reads.Back != 0 || r.Reads.Stale != 0 {
		t.Errorf("Lost %d, Surplus %d, Back %d, Stale %d, of reads Back %d, Stale %d: want none",
			r.Lost, r.Surplus, r.Back, r.Stale, r.Reads.Back, r.Reads.Stale)
	}
}

func TestQuietRun(t *testing.T) {
	s := postgres(t)
	for _, c := range []struct {
		name, option string
		load         ledger.Load
	}{
		{"implicit", "", ledger.Load{}},
		{"explicit", "", ledger.Load{Explicit: true}},
		{"without prepared statements", "&default_query_exec_mode=exec", ledger.Load{}},
		{"simple protocol", "&default_query_exec_mode=simple_protocol", ledger.Load{}},
		{"a table of one's own", "", ledger.Load{Table: `public.od"d name`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.load.Direct = []string{s.dsn()}
			c.load.Readers = 3
			began := time.Now()
			l := beginThrough(t, s, s.dsn()+c.option, c.load)
			acknowledged(t, l, 200)
			answered(t, l, 30)
			now := l.Now()
			r := end(t, l)
			sound(t, r)
			// 20 writers and 3 readers, 100 per second each, and none of them early.
			ticks := int(time.Since(began)/(10*time.Millisecond)) + 1
			if r.Sent > 20*ticks || r.Reads.Sent > 3*ticks {
				t.Errorf("Sent %d, Reads.Sent %d in %d ticks", r.Sent, r.Reads.Sent, ticks)
			}
			if r.Failed != 0 || r.InFlight != 0 || r.Writers != 20 || r.Reads.Failed != 0 || r.Reads.Behind != 0 || r.Reads.Readers != 3 {
				t.Errorf("Failed %d, InFlight %d, Writers %d, %+v", r.Failed, r.InFlight, r.Writers, r.Reads)
			}
			if now.Sent == 0 || now.Sent > r.Sent || now.Failed != 0 || now.Waiting > 20 || now.ReadsAnswered > r.Reads.Answered || now.ReadsFailed != 0 {
				t.Errorf("Now = %+v", now)
			}
			if r.P50 <= 0 || r.P50 > r.P99 || r.P99 > r.Stall || r.Silence <= 0 || r.ServerGap <= 0 {
				t.Errorf("P50 %v, P99 %v, Stall %v, Silence %v, ServerGap %v", r.P50, r.P99, r.Stall, r.Silence, r.ServerGap)
			}
			if v := r.Reads; v.P50 <= 0 || v.P50 > v.P99 || v.P99 > v.Stall || v.Silence <= 0 {
				t.Errorf("Reads: P50 %v, P99 %v, Stall %v, Silence %v", v.P50, v.P99, v.Stall, v.Silence)
			}
			if fmt.Sprint(r.Timelines) != "[1]" {
				t.Errorf("Timelines = %v", r.Timelines)
			}
		})
	}
	if n := s.exec(t, "select count(*) from pgconvoy_ledger_probe"); n != "0" {
		t.Errorf("%s rows are left in the probes' table", n)
	}
}

// What a report counts is what its attempts say.
func TestAttempts(t *testing.T) {
	s := postgres(t)
	l := begin(t, s, ledger.Load{Readers: 2})
	acknowledged(t, l, 100)
	mark := l.Mark("terminated")
	s.exec(t, "select pg_terminate_backend(pid) from pg_stat_activity where "+clients)
	await(t, "no read fails", func() bool { return l.Now().ReadsFailed > 0 })
	acknowledged(t, l, 100)
	answered(t, l, 20)
	r := end(t, l)
	sound(t, r)
	count := func(r ledger.Report) (n [2]map[ledger.Outcome]int) {
		n = [2]map[ledger.Outcome]int{{}, {}}
		for a := range r.Attempts() {
			kind := 0
			if a.Read {
				kind = 1
			}
			n[kind][a.Outcome]++
			if a.Start.Before(a.Due) || a.End.Before(a.Start) || a.End.Before(r.From) || !a.End.Before(r.To) {
				t.Errorf("%+v is not in order, or not in %v to %v", a, r.From, r.To)
			}
			if ok := a.Outcome == ledger.Acknowledged; ok != (a.Err == "") || ok && a.Timeline != 1 || ok && a.Read == a.Present {
				t.Errorf("%+v does not agree with itself", a)
			}
		}
		return n
	}
	for _, part := range []ledger.Report{r, r.Events[0], r.Window(r.From, mark)} {
		n := count(part)
		if n[0][ledger.Acknowledged] != part.Acknowledged || n[0][ledger.Unknown] != part.Unknown || n[0][ledger.Failed] != part.Failed-part.Unknown {
			t.Errorf("attempts %v, report %v", n[0], part)
		}
		if n[1][ledger.Acknowledged] != part.Reads.Answered || n[1][ledger.Failed] != part.Reads.Failed || n[1][ledger.Unknown] != 0 {
			t.Errorf("reads %v, report %+v", n[1], part.Reads)
		}
	}
	for range r.Attempts() {
		break // and nothing panics
	}
	for range (ledger.Report{Sent: 1}).Attempts() {
		t.Error("a report without a run has an attempt")
	}
}

func TestStopAgainReturnsTheSame(t *testing.T) {
	s := postgres(t)
	l := begin(t, s, ledger.Load{Writers: 2})
	acknowledged(t, l, 10)
	now := time.Now()
	acknowledged(t, l, 10)
	first := end(t, l)
	l.MarkAt(now, "learned later")
	l.NoteAt(now, "noted later")
	again := end(t, l)
	if first.Sent != again.Sent || first.To != again.To || len(first.Events)+len(first.Notes) != 0 {
		t.Errorf("%v\nthen\n%v", first, again)
	}
	if len(again.Events) != 1 || again.Events[0].Sent == 0 || len(again.Notes) != 1 {
		t.Errorf("Events %v, Notes %v", again.Events, again.Notes)
	}
}

func TestBackendsTerminated(t *testing.T) {
	s := postgres(t)
	for _, explicit := range []bool{false, true} {
		t.Run(fmt.Sprintf("explicit=%t", explicit), func(t *testing.T) {
			l := begin(t, s, ledger.Load{Explicit: explicit})
			acknowledged(t, l, 100)
			at := l.Mark("terminated")
			s.exec(t, "select pg_terminate_backend(pid) from pg_stat_activity where "+clients)
			await(t, "nothing fails", func() bool { return l.Now().Failed > 0 })
			acknowledged(t, l, 500)
			r := end(t, l)
			sound(t, r)
			// Each writer loses the transaction that it had under way, or the
			// next one that finds the connection gone, and goes on.
			if r.Failed == 0 || r.Failed > r.Writers || r.InFlight > r.Writers {
				t.Errorf("Failed %d, InFlight %d, Writers %d", r.Failed, r.InFlight, r.Writers)
			}
			if len(r.Events) != 1 || r.Events[0].Failed != r.Failed || r.Events[0].Name != "terminated" {
				t.Errorf("Events = %v", r.Events)
			}
			if w := r.Window(at, r.To); w.Failed != r.Failed || w.Acknowledged == 0 {
				t.Errorf("after the mark: Failed %d of %d, Acknowledged %d", w.Failed, r.Failed, w.Acknowledged)
			}
			n := 0
			for _, k := range r.BySQLState {
				n += k
			}
			if n != r.Failed || r.FirstError == "" {
				t.Errorf("BySQLState %v, FirstError %q", r.BySQLState, r.FirstError)
			}
		})
	}
}

func TestTamperedTable(t *testing.T) {
	s := postgres(t)
	s.exec(t, "drop table if exists tampered")
	l := begin(t, s, ledger.Load{Writers: 4, Table: "tampered"})
	await(t, "the first rows are not there", func() bool {
		return s.exec(t, "select count(*) from tampered where (writer, seq) in ((1, 2), (3, 0), (0, 0))") == "3"
	})
	s.exec(t,
		"create temp table r as select run from tampered limit 1",
		"delete from tampered where run = (select run from r) and writer = 1 and seq = 2",
		"insert into tampered select run, 3, 1, 1000000 from r",                                       // never sent
		"insert into tampered select run, 4, 1, 0 from r",                                             // no such writer
		"insert into tampered select run, 3, 1, 0 from r",                                             // twice
		"update tampered set timeline = 7 where run = (select run from r) and writer = 0 and seq = 0", // not the one that was acknowledged
	)
	if r := end(t, l); r.Lost != 2 || r.Surplus != 4 || r.Failed != 0 {
		t.Errorf("Lost %d, Surplus %d, Failed %d, want 2, 4 and 0", r.Lost, r.Surplus, r.Failed)
	}
}

func TestServerRestarts(t *testing.T) {
	s := postgres(t)
	for _, c := range []struct {
		name string
		sig  syscall.Signal
	}{
		{"fast", syscall.SIGINT},
		{"immediate", syscall.SIGQUIT},
		{"killed", syscall.SIGKILL},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := begin(t, s, ledger.Load{Readers: 2, Direct: []string{s.dsn(), "postgres://nobody@127.0.0.1:1/none"}})
			acknowledged(t, l, 100)
			l.Mark("down")
			s.stop(t, c.sig)
			down := time.Now()
			silent(t, l, 400*time.Millisecond)
			await(t, "nothing fails", func() bool { now := l.Now(); return now.Failed > 0 && now.ReadsFailed > 0 })
			outage := time.Since(down)
			s.restart(t)
			acknowledged(t, l, 100)
			answered(t, l, 20)
			r := end(t, l)
			sound(t, r)
			if c.sig == syscall.SIGKILL {
				outage = 0 // the children of the postmaster live a moment longer
			}
			if r.Silence < max(outage, 400*time.Millisecond) || r.ServerGap < outage || r.Reads.Silence < outage {
				t.Errorf("Silence %v, ServerGap %v, of reads %v: the server was down for %v", r.Silence, r.ServerGap, r.Reads.Silence, outage)
			}
			if r.Failed == 0 || r.Unknown > r.Writers || r.Stall < 100*time.Millisecond || r.Reads.Failed == 0 || r.Reads.FirstError == "" {
				t.Errorf("Failed %d, Unknown %d, Stall %v, %+v", r.Failed, r.Unknown, r.Stall, r.Reads)
			}
		})
	}
}

// Stop comes back in time though the server does not, says so, and can be
// called again when it is there.
func TestStopWhileTheServerIsDown(t *testing.T) {
	s := postgres(t)
	l := begin(t, s, ledger.Load{Direct: []string{s.dsn()}})
	acknowledged(t, l, 100)
	s.stop(t, syscall.SIGINT)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	began := time.Now()
	r, err := l.Stop(ctx)
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("Stop took %v with half a second to go", took)
	}
	s.restart(t)
	if w := r.Window(r.From, r.To); w.Sent != r.Sent || w.Checked {
		t.Errorf("the window of an unchecked report: %+v", w)
	}
	if !errors.Is(err, context.DeadlineExceeded) || r.Checked || r.Sent == 0 || !strings.Contains(r.String(), "not checked") {
		t.Errorf("%v\nerr %v", r, err)
	}
	if strings.Contains(fmt.Sprint(err), "s3cret") {
		t.Errorf("the error shows the password: %v", err)
	}
	sound(t, end(t, l))
	if w := r.Window(r.From, r.To); w.Checked {
		t.Error("the second Stop changed the report of the first")
	}
}

func TestStopWithEndedContext(t *testing.T) {
	s := postgres(t)
	l := begin(t, s, ledger.Load{Writers: 3})
	release := hang(t, s)
	await(t, "no writer hangs", func() bool { return l.Now().Waiting == 3 && waiting(t, s) == "3" })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := l.Stop(ctx)
	if err == nil || r.Unknown != 3 {
		t.Errorf("%v\nerr %v, want 3 unknown", r, err)
	}
	release()
	sound(t, end(t, l))
}

// waiting counts the clients that wait for a lock.
func waiting(t *testing.T, s *server) string {
	t.Helper()
	return s.exec(t, "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and "+clients)
}

// A client that gives up leaves its transaction behind on the server, where it
// may still commit. Stop waits for that before it reads.
func TestTransactionsLeftBehind(t *testing.T) {
	const timeout = 200 * time.Millisecond
	s := postgres(t)
	l := begin(t, s, ledger.Load{Writers: 3, Timeout: timeout})
	acknowledged(t, l, 10)
	release := hang(t, s)
	await(t, "nobody gives up", func() bool { return l.Now().Unknown >= 3 })
	var r ledger.Report
	var err error
	var wg sync.WaitGroup
	wg.Go(func() { r, err = l.Stop(t.Context()) })
	await(t, "Stop does not wait", func() bool {
		return s.exec(t, "select count(*) from pg_stat_activity where query like '%virtualtransaction = any%' and "+clients) == "1"
	})
	release()
	wg.Wait()
	t.Logf("\n%v", r)
	if err != nil {
		t.Fatal(err)
	}
	sound(t, r)
	if r.Unknown < 3 || r.Committed == 0 || r.BySQLState[ledger.TimedOut] != r.Failed {
		t.Errorf("Unknown %d, Committed %d, %v", r.Unknown, r.Committed, r.BySQLState)
	}
	if r.Stall < timeout {
		t.Errorf("Stall %v, want at least the timeout", r.Stall)
	}
}

// hang makes every insert wait until the returned function is called.
func hang(t *testing.T, s *server) (release func()) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	c, err := pgx.Connect(ctx, s.dsn())
	if err != nil {
		t.Fatal(err)
	}
	release = sync.OnceFunc(func() { _ = c.Close(ctx) })
	t.Cleanup(release)
	if _, err := c.Exec(ctx, "begin; lock table pgconvoy_ledger in share mode"); err != nil {
		t.Fatal(err)
	}
	return release
}

// set changes a setting of the running server until the test ends.
func set(t *testing.T, s *server, name, value string) (reset func()) {
	t.Helper()
	reset = sync.OnceFunc(func() { s.exec(t, "alter system reset "+name, "select pg_reload_conf()") })
	t.Cleanup(reset)
	s.exec(t, "alter system set "+name+" = '"+value+"'", "select pg_reload_conf()")
	return reset
}

func TestReadOnlyServer(t *testing.T) {
	const pause = 200 * time.Millisecond
	s := postgres(t)
	l := begin(t, s, ledger.Load{Readers: 2, Direct: []string{s.dsn()}})
	acknowledged(t, l, 100)
	reset := set(t, s, "default_transaction_read_only", "on")
	silent(t, l, pause)
	failed := l.Now().Failed
	await(t, "nobody fails again", func() bool { return l.Now().Failed >= failed+40 })
	answered(t, l, 20) // reads go on
	reset()
	acknowledged(t, l, 100)
	answered(t, l, 20)
	r := end(t, l)
	sound(t, r)
	if r.Failed == 0 || r.Unknown != 0 || r.BySQLState["25006"] != r.Failed || r.Reads.Failed != 0 {
		t.Errorf("Failed %d, Unknown %d, %v: want only 25006, none unknown; of reads %d", r.Failed, r.Unknown, r.BySQLState, r.Reads.Failed)
	}
	// Nobody's transaction was under way when it failed a second time.
	if r.Failed <= r.InFlight {
		t.Errorf("Failed %d is excused by InFlight %d", r.Failed, r.InFlight)
	}
	if r.Silence < pause || r.ServerGap == 0 {
		t.Errorf("Silence %v, ServerGap %v: the node did not accept writes for %v", r.Silence, r.ServerGap, pause)
	}
}

// A commit whose wait for the standby was cancelled is acknowledged by the
// server, with a warning. A failover may lose it: that is no acknowledgement.
func TestCommitThatIsNotReplicated(t *testing.T) {
	s := postgres(t)
	l := begin(t, s, ledger.Load{Writers: 4})
	acknowledged(t, l, 40)
	reset := set(t, s, "synchronous_standby_names", "nobody")
	const each = " from pg_stat_activity where wait_event = 'SyncRep' and " + clients
	stuck := func() bool { return s.exec(t, "select count(*)"+each) == "4" }
	await(t, "no writer waits for the standby", stuck)
	s.exec(t, "select pg_cancel_backend(pid)"+each)
	await(t, "nobody was cancelled", func() bool { return l.Now().Unknown >= 4 })
	await(t, "no writer waits for the standby again", stuck)
	s.exec(t, "select pg_terminate_backend(pid)"+each)
	await(t, "nobody was terminated", func() bool { return l.Now().Unknown >= 8 })
	reset()
	acknowledged(t, l, 40)
	r := end(t, l)
	sound(t, r)
	if r.Unknown < 8 || r.Committed != r.Unknown || r.BySQLState[ledger.NotReplicated] < 4 {
		t.Errorf("Unknown %d, Committed %d, %v", r.Unknown, r.Committed, r.BySQLState)
	}
}

// A start that cannot succeed leaves nothing behind, and says why.
func TestStartRefused(t *testing.T) {
	s := postgres(t)
	s.exec(t,
		"create table if not exists older (run bigint not null, writer integer not null, seq bigint not null)",
		"drop role if exists stranger", "create role stranger login")
	nowhere := strings.Replace(s.dsn(), "/postgres?", "/nowhere?", 1)
	for _, c := range []struct {
		name, dsn string
		load      ledger.Load
		want      string
	}{
		{"no server", "postgres://u:s3cret@127.0.0.1:1/db", ledger.Load{}, "refused"},
		{"no database", nowhere, ledger.Load{}, "does not exist"},
		{"a table of another shape", s.dsn(), ledger.Load{Table: "older"}, "preparing older: the table exists and has no column timeline"},
		{"no right to create", s.dsn(), ledger.Load{Table: "pg_catalog.mine"}, "preparing pg_catalog.mine"},
		{"nothing to read", s.dsn(), ledger.Load{Readers: 1, Read: nowhere}, "connecting the readers"},
		{"nobody to read for", s.dsn(), ledger.Load{Readers: 1, Read: "postgres://u:s3cret@127.0.0.1:1/db"}, "connecting the readers"},
		{"no right to read", s.dsn(), ledger.Load{Readers: 1, Read: strings.Replace(s.dsn(), "postgres:s3cret", "stranger:s3cret", 1)}, "42501"},
		{"no node writes", s.dsn(), ledger.Load{Direct: []string{nowhere}}, "Load.Direct[0]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			leak.Check(t, "topology/ledger.", "jackc/pgx")
			l, err := ledger.Start(t.Context(), c.dsn, c.load)
			if err == nil {
				_, _ = l.Stop(t.Context())
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%v\nwant an error about %q", err, c.want)
			}
		})
	}
}

// Ledgers that share a table do not see each other's rows.
func TestSideBySide(t *testing.T) {
	leak.Check(t, "topology/ledger.", "jackc/pgx")
	s := postgres(t)
	s.exec(t, "drop table if exists beside")
	var all [4]*ledger.Ledger
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() {
			l, err := ledger.Start(t.Context(), s.dsn(), ledger.Load{Writers: 3, Readers: 2, Table: "beside", Direct: []string{s.dsn()}})
			if err != nil {
				t.Error(err)
			}
			all[i] = l
		})
	}
	wg.Wait()
	for _, l := range all {
		if l != nil {
			acknowledged(t, l, 20)
			answered(t, l, 20)
		}
	}
	for _, l := range all {
		if l == nil {
			continue
		}
		r := end(t, l)
		sound(t, r)
		if r.Failed != 0 || r.Reads.Failed != 0 {
			t.Errorf("%v", r)
		}
	}
}

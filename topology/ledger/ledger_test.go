//go:build linux

package ledger_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgconvoy/pgconvoy/topology/ledger"
)

// begin starts a ledger, and checks at the end of the test that nothing of it
// is left: no goroutine, no connection.
func begin(t *testing.T, s *server, load ledger.Load) *ledger.Ledger {
	t.Helper()
	before := runtime.NumGoroutine()
	l, err := ledger.Start(t.Context(), s.dsn(), load)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		nothingLeft(t, before)
		eventually(t, "connections are left on the server", func() bool {
			return s.exec(t, "select count(*) from pg_stat_activity where application_name = 'pgconvoy-ledger'") == "0"
		})
	})
	return l
}

// end stops a ledger whose rows can be read.
func end(t *testing.T, l *ledger.Ledger) ledger.Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
	defer cancel()
	r, err := l.Stop(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%v", r)
	if !r.Checked || r.Sent != r.Acknowledged+r.Failed {
		t.Errorf("Checked %t, Sent %d, Acknowledged %d, Failed %d", r.Checked, r.Sent, r.Acknowledged, r.Failed)
	}
	return r
}

func nothingLeft(t *testing.T, before int) {
	t.Helper()
	if !eventually(t, "goroutines are left", func() bool { return runtime.NumGoroutine() <= before }) {
		buf := make([]byte, 1<<16)
		t.Logf("%s", buf[:runtime.Stack(buf, true)])
	}
}

func eventually(t *testing.T, complaint string, ok func() bool) bool {
	t.Helper()
	for range 100 {
		if ok() {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error(complaint)
	return false
}

func noneLost(t *testing.T, r ledger.Report) {
	t.Helper()
	if r.Lost != 0 || r.Surplus != 0 {
		t.Errorf("Lost %d, Surplus %d, want none", r.Lost, r.Surplus)
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
			before := runtime.NumGoroutine()
			c.load.Direct = []string{s.dsn()}
			l, err := ledger.Start(t.Context(), s.dsn()+c.option, c.load)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			now := l.Now()
			r := end(t, l)
			nothingLeft(t, before)
			noneLost(t, r)
			// 20 writers x 100 per second; a busy machine may be behind at the end.
			if r.Sent < 400 || r.Sent > 2300 || r.Failed != 0 || r.InFlight != 0 || r.Writers != 20 {
				t.Errorf("Sent %d, Failed %d, InFlight %d, Writers %d", r.Sent, r.Failed, r.InFlight, r.Writers)
			}
			if now.Sent == 0 || now.Sent > r.Sent || now.Failed != 0 || now.Waiting > 20 || now.SinceAck > time.Second {
				t.Errorf("Now = %+v", now)
			}
			if r.P50 <= 0 || r.P50 > r.P99 || r.P99 > r.Stall || r.Silence <= 0 || r.ServerGap <= 0 || r.ServerGap > time.Second {
				t.Errorf("P50 %v, P99 %v, Stall %v, Silence %v, ServerGap %v", r.P50, r.P99, r.Stall, r.Silence, r.ServerGap)
			}
		})
	}
	if n := s.exec(t, "select count(*) from pgconvoy_ledger_probe"); n != "0" {
		t.Errorf("%s rows are left in the probes' table", n)
	}
}

func TestStopAgainReturnsTheSame(t *testing.T) {
	s := postgres(t)
	l := begin(t, s, ledger.Load{Writers: 2})
	time.Sleep(50 * time.Millisecond)
	first := end(t, l)
	again := end(t, l)
	if first.Sent != again.Sent || first.To != again.To {
		t.Errorf("%v\nthen\n%v", first, again)
	}
}

func TestBackendsTerminated(t *testing.T) {
	s := postgres(t)
	for _, explicit := range []bool{false, true} {
		t.Run(fmt.Sprintf("explicit=%t", explicit), func(t *testing.T) {
			l := begin(t, s, ledger.Load{Explicit: explicit})
			time.Sleep(200 * time.Millisecond)
			at := l.Mark("terminated")
			s.exec(t, "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'pgconvoy-ledger'")
			time.Sleep(500 * time.Millisecond)
			r := end(t, l)
			noneLost(t, r)
			// Each writer loses the transaction that it had under way, or the
			// next one that finds the connection gone, and goes on.
			if r.Failed == 0 || r.Failed > r.InFlight || r.InFlight > r.Writers {
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
	time.Sleep(100 * time.Millisecond)
	s.exec(t,
		"create temp table r as select run from tampered limit 1",
		"delete from tampered where run = (select run from r) and writer = 1 and seq = 2",
		"insert into tampered select run, 3, 1000000 from r", // never sent
		"insert into tampered select run, 4, 0 from r",       // no such writer
		"insert into tampered select run, 3, 0 from r",       // twice
	)
	if r := end(t, l); r.Lost != 1 || r.Surplus != 3 || r.Failed != 0 {
		t.Errorf("Lost %d, Surplus %d, Failed %d, want 1, 3 and 0", r.Lost, r.Surplus, r.Failed)
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
			l := begin(t, s, ledger.Load{Direct: []string{s.dsn(), "postgres://nobody@127.0.0.1:1/none"}})
			time.Sleep(300 * time.Millisecond)
			from := l.Mark("down")
			s.stop(t, c.sig)
			time.Sleep(500 * time.Millisecond)
			if now := l.Now(); now.SinceAck < 400*time.Millisecond || now.Failed == 0 {
				t.Errorf("Now = %+v in the middle of an outage", now)
			}
			s.restart(t)
			outage := time.Since(from)
			time.Sleep(500 * time.Millisecond)
			r := end(t, l)
			noneLost(t, r)
			for _, f := range []struct {
				name string
				d    time.Duration
			}{{"Silence", r.Silence}, {"ServerGap", r.ServerGap}} {
				if f.d < 490*time.Millisecond || f.d > outage+300*time.Millisecond {
					t.Errorf("%s is %v, the outage was %v", f.name, f.d, outage)
				}
			}
			if r.Failed == 0 || r.Unknown > r.Writers || r.Stall < 100*time.Millisecond {
				t.Errorf("Failed %d, Unknown %d, Stall %v", r.Failed, r.Unknown, r.Stall)
			}
		})
	}
}

// Stop comes back in time though the server does not, says so, and can be
// called again when it is there.
func TestStopWhileTheServerIsDown(t *testing.T) {
	s := postgres(t)
	l := begin(t, s, ledger.Load{Direct: []string{s.dsn()}})
	time.Sleep(200 * time.Millisecond)
	s.stop(t, syscall.SIGINT)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	began := time.Now()
	r, err := l.Stop(ctx)
	took := time.Since(began)
	s.restart(t)
	if w := r.Window(r.From, r.To); w.Sent != r.Sent || w.Checked {
		t.Errorf("the window of an unchecked report: %+v", w)
	}
	if err == nil || r.Checked || r.Sent == 0 || !strings.Contains(r.String(), "not checked") {
		t.Errorf("%v\nerr %v", r, err)
	}
	if strings.Contains(fmt.Sprint(err), "s3cret") {
		t.Errorf("the error shows the password: %v", err)
	}
	if took > time.Second {
		t.Errorf("Stop took %v with half a second to go", took)
	}
	noneLost(t, end(t, l))
	if w := r.Window(r.From, r.To); w.Checked {
		t.Error("the second Stop changed the report of the first")
	}
}

func TestStopWithEndedContext(t *testing.T) {
	s := postgres(t)
	l := begin(t, s, ledger.Load{Writers: 3})
	release := hang(t, s)
	eventually(t, "no writer hangs", func() bool { return l.Now().Waiting == 3 })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := l.Stop(ctx)
	if err == nil || r.Unknown != 3 {
		t.Errorf("%v\nerr %v, want 3 unknown", r, err)
	}
	release()
	noneLost(t, end(t, l))
}

// A client that gives up leaves its transaction behind on the server, where it
// may still commit. Stop waits for that before it reads.
func TestTransactionsLeftBehind(t *testing.T) {
	s := postgres(t)
	l := begin(t, s, ledger.Load{Writers: 3, Timeout: 200 * time.Millisecond})
	time.Sleep(50 * time.Millisecond)
	release := hang(t, s)
	time.Sleep(300 * time.Millisecond)
	timer := time.AfterFunc(700*time.Millisecond, release)
	defer timer.Stop()
	r := end(t, l)
	noneLost(t, r)
	if r.Unknown < 3 || r.Committed == 0 || r.BySQLState[ledger.TimedOut] != r.Failed {
		t.Errorf("Unknown %d, Committed %d, %v", r.Unknown, r.Committed, r.BySQLState)
	}
	if r.Stall < 200*time.Millisecond {
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
func set(t *testing.T, s *server, name, value string) {
	t.Helper()
	t.Cleanup(func() {
		s.exec(t, "alter system reset "+name, "select pg_reload_conf()")
	})
	s.exec(t, "alter system set "+name+" = '"+value+"'", "select pg_reload_conf()")
}

func TestReadOnlyServer(t *testing.T) {
	s := postgres(t)
	l := begin(t, s, ledger.Load{Direct: []string{s.dsn()}})
	time.Sleep(200 * time.Millisecond)
	set(t, s, "default_transaction_read_only", "on")
	time.Sleep(300 * time.Millisecond)
	s.exec(t, "alter system reset default_transaction_read_only", "select pg_reload_conf()")
	time.Sleep(200 * time.Millisecond)
	r := end(t, l)
	noneLost(t, r)
	if r.Failed == 0 || r.Unknown != 0 || r.BySQLState["25006"] != r.Failed {
		t.Errorf("Failed %d, Unknown %d, %v: want only 25006, none unknown", r.Failed, r.Unknown, r.BySQLState)
	}
	// Nobody's transaction was under way when it failed a second time.
	if r.Failed <= r.InFlight {
		t.Errorf("Failed %d is excused by InFlight %d", r.Failed, r.InFlight)
	}
	if r.ServerGap < 200*time.Millisecond {
		t.Errorf("ServerGap %v: the node did not accept writes for 0.3 s", r.ServerGap)
	}
}

// A commit whose wait for the standby was cancelled is acknowledged by the
// server, with a warning. A failover may lose it: that is no acknowledgement.
func TestCommitThatIsNotReplicated(t *testing.T) {
	s := postgres(t)
	l := begin(t, s, ledger.Load{Writers: 4})
	time.Sleep(100 * time.Millisecond)
	set(t, s, "synchronous_standby_names", "nobody")
	eventually(t, "no writer waits for the standby", func() bool { return l.Now().Waiting == 4 })
	time.Sleep(100 * time.Millisecond)
	const each = " from pg_stat_activity where application_name = 'pgconvoy-ledger' and wait_event = 'SyncRep'"
	s.exec(t, "select pg_cancel_backend(pid)"+each)
	time.Sleep(100 * time.Millisecond)
	s.exec(t, "select pg_terminate_backend(pid)"+each)
	time.Sleep(100 * time.Millisecond)
	s.exec(t, "alter system reset synchronous_standby_names", "select pg_reload_conf()")
	time.Sleep(200 * time.Millisecond)
	r := end(t, l)
	noneLost(t, r)
	if r.Unknown < 8 || r.Committed != r.Unknown || r.BySQLState[ledger.NotReplicated] < 4 {
		t.Errorf("Unknown %d, Committed %d, %v", r.Unknown, r.Committed, r.BySQLState)
	}
}

// A start that cannot succeed leaves nothing behind, and says why.
func TestStartRefused(t *testing.T) {
	s := postgres(t)
	standby := strings.Replace(s.dsn(), "/postgres?", "/nowhere?", 1)
	for _, c := range []struct {
		name, dsn string
		load      ledger.Load
		want      string
	}{
		{"no server", "postgres://u:s3cret@127.0.0.1:1/db", ledger.Load{}, "refused"},
		{"no database", standby, ledger.Load{}, "does not exist"},
		{"a table of another shape", s.dsn(), ledger.Load{Table: "pg_catalog.pg_class"}, "connecting the writers"},
		{"no right to create", s.dsn(), ledger.Load{Table: "pg_catalog.mine"}, "creating pg_catalog.mine"},
		{"no node writes", s.dsn(), ledger.Load{Direct: []string{standby}}, "Load.Direct[0]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := runtime.NumGoroutine()
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			l, err := ledger.Start(ctx, c.dsn, c.load)
			if err == nil {
				_, _ = l.Stop(ctx)
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%v\nwant an error about %q", err, c.want)
			}
			nothingLeft(t, before)
		})
	}
}

// Ledgers that share a table do not see each other's rows.
func TestSideBySide(t *testing.T) {
	s := postgres(t)
	var all [4]*ledger.Ledger
	var wg sync.WaitGroup
	before := runtime.NumGoroutine()
	for i := range all {
		wg.Go(func() {
			l, err := ledger.Start(t.Context(), s.dsn(), ledger.Load{Writers: 3, Table: "beside", Direct: []string{s.dsn()}})
			if err != nil {
				t.Error(err)
			}
			all[i] = l
		})
	}
	wg.Wait()
	time.Sleep(200 * time.Millisecond)
	for _, l := range all {
		if l == nil {
			continue
		}
		if r := end(t, l); r.Lost != 0 || r.Surplus != 0 || r.Failed != 0 {
			t.Errorf("%v", r)
		}
	}
	nothingLeft(t, before)
}

//go:build linux

package patroni_test

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconvoy/pgconvoy/internal/porttest"
	"github.com/pgconvoy/pgconvoy/patroni"
)

// postgres is one server of the test's own.
type postgres struct {
	testing.TB
	bin, dir string
	addr     netip.AddrPort
	who      *syscall.Credential // PostgreSQL refuses root
	cmd      *exec.Cmd           // the postmaster; nil: stopped
	exited   chan struct{}
}

func newPostgres(tb testing.TB) *postgres {
	tb.Helper()
	pg := &postgres{TB: tb, bin: postgresBin(tb)}
	if os.Getuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			tb.Fatal(err)
		}
		uid, _ := strconv.ParseUint(u.Uid, 10, 32) // digits, by the system's word
		gid, _ := strconv.ParseUint(u.Gid, 10, 32)
		pg.who = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	pg.place()
	pg.run("initdb", "-D", pg.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
	pg.start()
	return pg
}

// place makes a folder of the server's user, and finds a free port.
func (pg *postgres) place() {
	pg.Helper()
	dir, err := os.MkdirTemp("", "patroni-test-") // not below TempDir, which only its owner may enter
	if err != nil {
		pg.Fatal(err)
	}
	pg.dir = dir
	if pg.who != nil {
		if err := os.Chown(dir, int(pg.who.Uid), int(pg.who.Gid)); err != nil {
			pg.Fatal(err)
		}
	}
	pg.addr = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(porttest.Free(pg)))
	pg.Cleanup(func() {
		pg.kill()
		if err := os.RemoveAll(dir); err != nil {
			pg.Error(err)
		}
	})
}

func (pg *postgres) data() string { return filepath.Join(pg.dir, "data") }

func (pg *postgres) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(pg.bin, program), args...)
	cmd.Dir = pg.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: pg.who, Setpgid: true}
	return cmd
}

func (pg *postgres) run(program string, args ...string) {
	pg.Helper()
	if out, err := pg.command(program, args...).CombinedOutput(); err != nil {
		pg.Fatalf("%s: %v\n%s", program, err, out)
	}
}

// start returns when the server answers.
func (pg *postgres) start() {
	pg.Helper()
	log, err := os.OpenFile(filepath.Join(pg.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		pg.Fatal(err)
	}
	defer log.Close()
	pg.cmd = pg.command("postgres", "-D", pg.data(), "-h", "127.0.0.1", "-p", strconv.Itoa(int(pg.addr.Port())), "-k", "",
		"-c", "fsync=off", "-c", "shared_buffers=16MB", "-c", "max_connections=20", "-c", "wal_level=replica", "-c", "log_min_messages=warning")
	pg.cmd.Stdout, pg.cmd.Stderr = log, log
	pg.cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT // a test that is cut short leaves no server
	if err := pg.cmd.Start(); err != nil {
		pg.Fatal(err)
	}
	exited := make(chan struct{})
	pg.exited = exited
	go func() {
		_ = pg.cmd.Wait() // the tests look at the server, not at its exit status
		close(exited)
	}()
	for deadline := time.Now().Add(time.Minute); ; {
		if _, err := pg.query("SELECT 1"); err == nil {
			return
		}
		select {
		case <-exited:
		case <-time.After(5 * time.Millisecond):
			if time.Now().Before(deadline) {
				continue
			}
		}
		text, _ := os.ReadFile(log.Name())
		pg.Fatalf("the server does not start:\n%s", text)
	}
}

// kill ends the postmaster at once, and then what it leaves behind.
func (pg *postgres) kill() {
	if pg.cmd == nil {
		return
	}
	pids := pg.pids()
	_ = syscall.Kill(pg.cmd.Process.Pid, syscall.SIGKILL) // ours, and not yet waited for
	<-pg.exited
	pg.cmd = nil
	for _, pid := range pids[1:] {
		for alive(pid) {
			_ = syscall.Kill(pid, syscall.SIGKILL) // a child of the dead postmaster's, as alive has just seen
			time.Sleep(time.Millisecond)
		}
	}
}

// gone waits for processes of a killed server: the next one does not start while they hold its shared memory.
func (pg *postgres) gone(pids []int) {
	pg.Helper()
	for deadline := time.Now().Add(10 * time.Second); slices.ContainsFunc(pids, alive); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			pg.Fatal("processes of the killed server do not end")
		}
	}
}

// pids lists the postmaster and its children, the postmaster first.
func (pg *postgres) pids() []int {
	pids := []int{pg.cmd.Process.Pid}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is right
	for _, file := range stats {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if parent, _ := stat(pid); parent == pids[0] {
			pids = append(pids, pid)
		}
	}
	return pids
}

// stat returns a process's parent and state.
func stat(pid int) (parent int, state string) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, ""
	}
	rest := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	parent, _ = strconv.Atoi(rest[1])
	return parent, rest[0]
}

func alive(pid int) bool {
	_, state := stat(pid)
	return state != "" && state != "Z" && state != "X"
}

// signal sends a signal to the postmaster and its children.
func (pg *postgres) signal(sig syscall.Signal) {
	for _, pid := range pg.pids() {
		_ = syscall.Kill(pid, sig) // one that has ended meanwhile has ended
	}
}

func (pg *postgres) connector() patroni.Connect {
	pg.Helper()
	config, err := pgconn.ParseConfig("host=elsewhere port=1 user=postgres dbname=postgres application_name=probe")
	if err != nil {
		pg.Fatal(err)
	}
	return patroni.Connector(config)
}

// query returns the first value.
func (pg *postgres) query(sql string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := pgconn.Connect(ctx, fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres sslmode=disable", pg.addr.Addr(), pg.addr.Port()))
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close(ctx) }()
	results, err := c.Exec(ctx, sql).ReadAll()
	if err != nil || len(results) == 0 || len(results[0].Rows) == 0 {
		return "", err
	}
	return string(results[0].Rows[0][0]), nil
}

func (pg *postgres) must(sql string) string {
	pg.Helper()
	s, err := pg.query(sql)
	if err != nil {
		pg.Fatalf("%s: %v", sql, err)
	}
	return s
}

// position is a place in the WAL as a number of bytes.
func (pg *postgres) position(of string) uint64 {
	pg.Helper()
	n, err := strconv.ParseUint(pg.must("SELECT "+of+" - '0/0'"), 10, 64)
	if err != nil {
		pg.Fatal(err)
	}
	return n
}

// standby makes a server that streams from this one.
func (pg *postgres) standby() *postgres {
	pg.Helper()
	sb := &postgres{TB: pg.TB, bin: pg.bin, who: pg.who}
	sb.place()
	sb.run("pg_basebackup", "-D", sb.data(), "-d", fmt.Sprintf("host=127.0.0.1 port=%d user=postgres", pg.addr.Port()), "-c", "fast", "-R", "-N")
	sb.start()
	return sb
}

// probing is a Probe that runs beside the test.
type probing struct {
	testing.TB
	c    chan patroni.Proof
	stop func()
}

func probe(tb testing.TB, s *patroni.SQL, addr netip.AddrPort) *probing {
	ctx, cancel := context.WithCancel(context.Background())
	p := &probing{TB: tb, c: make(chan patroni.Proof, 1<<16)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for proof := range s.Probe(ctx, addr) {
			p.c <- proof
		}
	}()
	p.stop = func() {
		cancel()
		<-done
	}
	tb.Cleanup(p.stop)
	return p
}

// until waits for an answer, and says how long that took.
func (p *probing) until(what string, is func(patroni.Proof) bool) (patroni.Proof, time.Duration) {
	p.Helper()
	begin := time.Now()
	var last patroni.Proof
	deadline := time.After(30 * time.Second)
	for {
		select {
		case last = <-p.c:
			if is(last) {
				return last, time.Since(begin)
			}
		case <-deadline:
			p.Fatalf("%s: not within 30 s; last %+v", what, last)
		}
	}
}

// drain forgets the answers so far.
func (p *probing) drain() {
	for len(p.c) > 0 {
		<-p.c
	}
}

func writable(p patroni.Proof) bool { return p.Err == nil && p.Writable }

func failed(p patroni.Proof) bool { return p.Err != nil }

func TestSQLProbe(t *testing.T) {
	noGoroutines(t)
	pg := newPostgres(t)
	id := pg.must("SELECT system_identifier FROM pg_control_system()")
	sql := &patroni.SQL{Connect: pg.connector()}

	t.Run("writable", func(t *testing.T) {
		p := probe(t, sql, pg.addr)
		before := time.Now()
		got, took := p.until("writable", writable)
		if got.Timeline != 1 || got.SystemID != id || got.At.Before(before.Add(-time.Second)) || got.At.After(time.Now()) {
			t.Errorf("%+v", got)
		}
		t.Logf("the first answer after %v", took)
		low := pg.position("pg_current_wal_lsn()")
		pg.must("SELECT pg_logical_emit_message(true, 'test', repeat('x', 1000))")
		high := pg.position("pg_current_wal_lsn()")
		if got, _ := p.until("further", func(p patroni.Proof) bool { return p.LSN >= high }); low < 1<<20 || low >= high || got.LSN > high+1<<20 {
			t.Errorf("at %d, between %d and %d by its own word", got.LSN, low, high)
		}
	})

	t.Run("leaves no connection", func(t *testing.T) {
		const probes = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'probe'"
		p := probe(t, &patroni.SQL{Connect: sql.Connect, Rest: time.Hour}, pg.addr)
		p.until("writable", writable)
		await(t, "one connection while it runs", func() bool { return pg.must(probes) == "1" }) // others may be ending
		stopped := time.Now()
		p.stop() // while it rests
		if d := time.Since(stopped); d > 5*time.Second {
			t.Errorf("took %v to stop", d)
		}
		await(t, "none after it", func() bool { return pg.must(probes) == "0" })
		for range sql.Probe(t.Context(), pg.addr) {
			break // a consumer that leaves
		}
		await(t, "none after its consumer has left", func() bool { return pg.must(probes) == "0" })
	})

	t.Run("rests while nothing happens", func(t *testing.T) {
		p := probe(t, &patroni.SQL{Connect: sql.Connect, Rest: 20 * time.Millisecond}, pg.addr)
		first, _ := p.until("writable", writable)
		second, _ := p.until("again", writable)
		if d := second.At.Sub(first.At); d < 20*time.Millisecond {
			t.Errorf("asked again after %v", d)
		}
	})

	t.Run("one connection that is ended", func(t *testing.T) {
		p := probe(t, sql, pg.addr)
		p.until("writable", writable)
		p.drain()
		pg.must("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'probe'")
		lost, took := p.until("lost", failed)
		_, back := p.until("writable again", writable)
		t.Logf("told after %v, back %v later: %v", took, back, lost.Err)
	})

	t.Run("hangs", func(t *testing.T) {
		const bound = 300 * time.Millisecond
		p := probe(t, &patroni.SQL{Connect: sql.Connect, Bound: bound, Rest: 50 * time.Millisecond}, pg.addr)
		p.until("writable", writable)
		pg.signal(syscall.SIGSTOP)
		defer pg.signal(syscall.SIGCONT)
		p.drain()
		_, took := p.until("lost", failed)
		_, again := p.until("still lost", failed)
		if took > bound+5*time.Second || again > bound+5*time.Second { // without the bound: never
			t.Errorf("told after %v and %v, the bound is %v", took, again, bound)
		}
		t.Logf("told after %v, and again after %v, with a bound of %v", took, again, bound)
		stopped := time.Now()
		p.stop() // also while a connect hangs
		if d := time.Since(stopped); d > 5*time.Second {
			t.Errorf("took %v to stop", d)
		}
	})

	t.Run("killed and started again", func(t *testing.T) {
		p := probe(t, sql, pg.addr)
		p.until("writable", writable)
		p.drain()
		before := pg.pids()
		begin := time.Now()
		_ = syscall.Kill(before[0], syscall.SIGKILL) // the postmaster alone: its backends see it
		lost, _ := p.until("lost", failed)
		if d := time.Since(begin); d > 5*time.Second {
			t.Errorf("told after %v", d)
		} else {
			t.Logf("told %v after kill -9 of the postmaster: %v", d, lost.Err)
		}
		pg.kill()
		pg.gone(before)
		pg.start()
		_, back := p.until("writable again", writable)
		t.Logf("writable %v after the server answered", back)

		p.drain()
		begin = time.Now()
		pids := pg.pids()
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		p.until("lost", failed)
		t.Logf("told %v after kill -9 of all processes", time.Since(begin))
		pg.kill()
		pg.gone(pids)
		pg.start()
		p.until("writable again", writable)
	})

	t.Run("checkpoint", func(t *testing.T) {
		before := pg.must("SELECT checkpoint_lsn FROM pg_control_checkpoint()")
		pg.must("SELECT pg_switch_wal()")
		if err := sql.Checkpoint(t.Context(), pg.addr); err != nil {
			t.Fatal(err)
		}
		if after := pg.must("SELECT checkpoint_lsn FROM pg_control_checkpoint()"); after == before {
			t.Error("no checkpoint was made")
		}
		pg.must("CREATE ROLE nobody LOGIN")
		config, err := pgconn.ParseConfig("host=elsewhere user=nobody dbname=postgres")
		if err != nil {
			t.Fatal(err)
		}
		weak := &patroni.SQL{Connect: patroni.Connector(config)}
		if err := weak.Checkpoint(t.Context(), pg.addr); err == nil || !strings.Contains(err.Error(), pg.addr.String()) {
			t.Errorf("without the right: %v", err)
		}
		// Watching a primary needs no rights at all.
		p := probe(t, weak, pg.addr)
		p.until("writable", writable)
	})

	t.Run("standby", func(t *testing.T) {
		sb := pg.standby()
		p := probe(t, sql, sb.addr)
		got, _ := p.until("streaming", func(p patroni.Proof) bool { return p.Err == nil && p.Timeline != 0 })
		if got.Writable || got.Timeline != 1 || got.SystemID != id {
			t.Errorf("%+v", got)
		}
		pg.must("SELECT pg_logical_emit_message(true, 'test', repeat('x', 1000))")
		written := pg.position("pg_current_wal_lsn()")
		p.until("replayed", func(p patroni.Proof) bool { return p.LSN >= written })
		// Without pg_monitor a replica's timeline is hidden: it is in recovery and nothing more.
		config, err := pgconn.ParseConfig("host=elsewhere user=postgres dbname=postgres options=-crole=pg_read_all_settings")
		if err != nil {
			t.Fatal(err)
		}
		blind := probe(t, &patroni.SQL{Connect: patroni.Connector(config)}, sb.addr)
		if got, _ := blind.until("an answer", func(p patroni.Proof) bool { return p.Err == nil }); got.Writable || got.Timeline != 0 || got.LSN < written {
			t.Errorf("without pg_monitor: %+v", got)
		}
		blind.stop()

		p.drain()
		if s := sb.must("SELECT pg_promote()"); s != "t" {
			t.Fatalf("pg_promote: %s", s)
		}
		got, took := p.until("promoted", writable)
		if got.Timeline != 2 || got.SystemID != id {
			t.Errorf("%+v", got)
		}
		t.Logf("writable on timeline 2 seen %v after pg_promote() returned", took)
		p.stop()
		sb.kill()
	})
}

// await waits until something is so.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("not within 30 s: %s", what)
			return
		}
	}
}

// The cadence needs no server: where nobody listens, answers come at once.
func TestSQLProbeIsEager(t *testing.T) {
	noGoroutines(t)
	var asked atomic.Int64
	sql := &patroni.SQL{Connect: func(context.Context, netip.AddrPort) (*pgconn.PgConn, error) {
		asked.Add(1)
		return nil, errLost
	}}
	var at []time.Time
	for p := range sql.Probe(t.Context(), n1) {
		if p.Err == nil || !strings.Contains(p.Err.Error(), n1.String()) {
			t.Fatalf("%+v", p)
		}
		if at = append(at, p.At); len(at) == 30 {
			break
		}
	}
	var gaps []time.Duration
	for i := range len(at) - 1 {
		gaps = append(gaps, at[i+1].Sub(at[i]))
	}
	slices.Sort(gaps) // a busy machine makes some of them long, a probe that rests all
	if gaps[0] < 3*time.Millisecond || gaps[len(gaps)/4] > 100*time.Millisecond || asked.Load() != 30 {
		t.Errorf("asked %d times, at %v", asked.Load(), gaps)
	}
}

//go:build linux

package ledger_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// server is one PostgreSQL instance in a folder of its own.
type server struct {
	bin, dir string
	port     int
	creds    *syscall.Credential // PostgreSQL refuses root
	pid      int
	exited   chan struct{} // of the present postmaster
}

var shared struct {
	once sync.Once
	s    *server
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if s := shared.s; s != nil {
		if err := s.remove(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// postgres returns the instance that the tests share, running. A test that
// stops it starts it again.
func postgres(t *testing.T) *server {
	t.Helper()
	bin := programs(t)
	shared.once.Do(func() { shared.s, shared.err = newServer(bin) })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.s
}

// pair returns a primary of the test's own and a standby that streams from it.
func pair(t *testing.T) (primary, standby *server) {
	t.Helper()
	primary, err := newServer(programs(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { discard(t, primary) })
	standby, err = primary.clone()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { discard(t, standby) })
	await(t, "the standby does not stream", func() bool {
		return primary.exec(t, "select count(*) from pg_stat_replication where state = 'streaming'") == "1"
	})
	return primary, standby
}

func discard(t *testing.T, s *server) {
	t.Helper()
	if err := s.remove(); err != nil {
		t.Error(err)
	}
}

// programs returns the folder of PostgreSQL's programs.
func programs(t *testing.T) string {
	t.Helper()
	bin, ok := findPostgres()
	if !ok {
		const msg = "PostgreSQL is not installed (no initdb in PATH nor in /usr/lib/postgresql): apt-get install postgresql"
		if os.Getenv("PGCONVOY_REQUIRE") == "1" {
			t.Fatal(msg)
		}
		t.Skip(msg)
	}
	return bin
}

func findPostgres() (string, bool) {
	if p, err := exec.LookPath("initdb"); err == nil {
		if p, err = filepath.EvalSymlinks(p); err == nil { // the others are beside it
			return filepath.Dir(p), true
		}
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // the pattern is right
	slices.SortFunc(found, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(b, a)) })
	if len(found) == 0 {
		return "", false
	}
	return filepath.Dir(found[0]), true
}

func newServer(bin string) (*server, error) {
	s, err := newFolder(bin)
	if err != nil {
		return nil, err
	}
	if err := s.run("initdb", "-D", s.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "-N"); err != nil {
		return nil, err
	}
	return s, s.launch()
}

// clone starts a standby of s.
func (s *server) clone() (*server, error) {
	c, err := newFolder(s.bin)
	if err != nil {
		return nil, err
	}
	if err := c.run("pg_basebackup", "-D", c.data(), "-d", s.dsn(), "-R", "-X", "stream", "-c", "fast", "-N"); err != nil {
		return nil, err
	}
	return c, c.launch()
}

// launch starts the server for the first time, on a port that it keeps.
func (s *server) launch() error {
	var err error
	for range 10 {
		// Below those that the kernel gives to outgoing connections: one of these
		// could take the port while the server is down.
		s.port = 20_000 + rand.IntN(12_000)
		if err = s.start(); err == nil {
			return nil
		}
		s.signal(syscall.SIGQUIT)
		<-s.exited // the port was taken, most likely
	}
	return err
}

// newFolder prepares a folder for a server.
func newFolder(bin string) (*server, error) {
	s := &server{bin: bin}
	dir, err := os.MkdirTemp("", "ledger-test-")
	if err != nil {
		return nil, err
	}
	s.dir = dir
	if os.Getuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			return nil, err
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		s.creds = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(dir, uid, gid); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// run runs one of PostgreSQL's programs to its end.
func (s *server) run(program string, args ...string) error {
	cmd := exec.Command(filepath.Join(s.bin, program), args...)
	cmd.Dir = s.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.creds}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", program, err, out)
	}
	return nil
}

// remove ends the server and removes its folder.
func (s *server) remove() error {
	s.signal(syscall.SIGQUIT)
	<-s.exited
	return os.RemoveAll(s.dir)
}

func (s *server) data() string { return filepath.Join(s.dir, "data") }

func (s *server) dsn() string { return dsnOf(s.address()) }

func (s *server) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

func dsnOf(address string) string {
	return "postgres://postgres:s3cret@" + address + "/postgres?sslmode=disable"
}

// start starts a postmaster, which dies with this process: the thread that
// forks it lives as long as it does.
func (s *server) start() error {
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(s.bin, "postgres"), "-D", s.data(), "-p", strconv.Itoa(s.port),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off",
		"-c", "log_min_messages=fatal")
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.creds, Pdeathsig: syscall.SIGQUIT}
	started := make(chan error, 1)
	s.exited = make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer close(s.exited)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is the tests' business
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	s.pid = cmd.Process.Pid
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		err := s.answers(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("postgres does not start: %w", err)
		case <-s.exited:
			return fmt.Errorf("postgres ended at once; its log is %s", log.Name())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// answers tells whether this server can be reached, and not another one on its
// port.
func (s *server) answers(ctx context.Context) error {
	c, err := pgx.Connect(ctx, s.dsn())
	if err != nil {
		return err
	}
	var dir string
	err = c.QueryRow(ctx, "show data_directory").Scan(&dir)
	if err == nil && dir != s.data() {
		err = fmt.Errorf("port %d is that of %s", s.port, dir)
	}
	return errors.Join(err, c.Close(ctx))
}

// signal does nothing to a server that has ended.
func (s *server) signal(sig syscall.Signal) {
	select {
	case <-s.exited:
	default:
		_ = syscall.Kill(s.pid, sig)
	}
}

// stop ends the postmaster with sig and waits for it.
func (s *server) stop(t *testing.T, sig syscall.Signal) {
	t.Helper()
	s.signal(sig)
	select {
	case <-s.exited:
	case <-time.After(30 * time.Second):
		t.Fatalf("postgres does not end on %v", sig)
	}
}

// restart starts it again, after a crash too: the children of a postmaster
// that was killed need a moment to notice.
func (s *server) restart(t *testing.T) {
	t.Helper()
	var err error
	for range 50 {
		if err = s.start(); err == nil {
			return
		}
		<-s.exited
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal(err)
}

// exec runs statements as a bystander and returns the last one's first value.
func (s *server) exec(t *testing.T, statements ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, s.dsn())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(ctx) }()
	var value string
	for _, sql := range statements {
		results, err := c.PgConn().Exec(ctx, sql).ReadAll()
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		value = ""
		if len(results) > 0 && len(results[0].Rows) > 0 {
			value = string(results[0].Rows[0][0])
		}
	}
	return value
}

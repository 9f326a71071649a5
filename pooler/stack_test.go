package pooler_test

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconvoy/pgconvoy/internal/porttest"
	"github.com/pgconvoy/pgconvoy/pooler"
)

// This file starts what the tests need: two PostgreSQL servers, shared by all tests, and a PgBouncer for each test.

var shared struct {
	once sync.Once
	dir  string
	pg   [2]*postgres
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	for _, pg := range shared.pg {
		if pg != nil {
			pg.proc.stop(syscall.SIGQUIT)
		}
	}
	if shared.dir != "" {
		_ = os.RemoveAll(shared.dir)
	}
	os.Exit(code)
}

// missing skips the test, or fails it where the environment promises that everything is installed.
func missing(tb testing.TB, program string) {
	tb.Helper()
	if os.Getenv("PGCONVOY_REQUIRE") == "1" {
		tb.Fatalf("%s is not installed although PGCONVOY_REQUIRE=1: run `make setup`", program)
	}
	tb.Skipf("%s is not installed: run `make setup`", program)
}

// find returns the path of a program, or "".
func find(program string) string {
	cache := os.Getenv("XDG_CACHE_HOME")
	if cache == "" {
		cache = filepath.Join(os.Getenv("HOME"), ".cache")
	}
	dirs := []string{filepath.Join(os.Getenv("PGCONVOY_HOME"), "bin"), "/opt/pgconvoy/bin", filepath.Join(cache, "pgconvoy", "bin")}
	installed, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.Reverse(installed)
	for _, dir := range append(dirs, installed...) {
		if st, err := os.Stat(filepath.Join(dir, program)); err == nil && st.Mode().IsRegular() && filepath.IsAbs(dir) {
			return filepath.Join(dir, program)
		}
	}
	path, _ := exec.LookPath(program)
	return path
}

// unprivileged is who runs the servers, since they refuse root. Nil: ourselves.
func unprivileged() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, err
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// serverDir makes a directory that the servers' user owns.
func serverDir(cred *syscall.Credential) (string, error) {
	dir, err := os.MkdirTemp("", "pooler-test-")
	if err == nil && cred != nil {
		err = os.Chown(dir, int(cred.Uid), int(cred.Gid))
	}
	return dir, err
}

// process is a child with its output in a file.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
}

func start(cred *syscall.Credential, logfile, program string, args ...string) (*process, error) {
	out, err := os.OpenFile(logfile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(program, args...)
	cmd.Dir = filepath.Dir(logfile)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.SysProcAttr = procAttr(cred)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// stop signals the process, insists after a while and waits until it is gone.
func (p *process) stop(sig syscall.Signal) {
	_ = p.cmd.Process.Signal(sig)
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

type postgres struct {
	addr netip.AddrPort
	proc *process
}

// servers returns the addresses of two PostgreSQL servers that know nothing of each other: 127.0.0.1 and 127.0.0.2
// at the same port. Each has the database "app" with the tables writes(n) and who(name), which holds "a" or "b".
func servers(tb testing.TB) (a, b netip.AddrPort) {
	tb.Helper()
	for _, program := range []string{"initdb", "postgres"} {
		if find(program) == "" {
			missing(tb, program)
		}
	}
	shared.once.Do(func() { shared.err = startServers(tb) })
	if shared.err != nil {
		tb.Fatal(shared.err)
	}
	return shared.pg[0].addr, shared.pg[1].addr
}

func startServers(tb testing.TB) error {
	tb.Helper()
	cred, err := unprivileged()
	if err != nil {
		return err
	}
	if shared.dir, err = serverDir(cred); err != nil {
		return err
	}
	port := porttest.Free(tb, "127.0.0.1", "127.0.0.2")
	for i, name := range []string{"a", "b"} {
		dir := filepath.Join(shared.dir, name)
		initdb := exec.Command(find("initdb"), "-D", dir, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
		initdb.Dir = shared.dir
		initdb.SysProcAttr = procAttr(cred)
		if out, err := initdb.CombinedOutput(); err != nil {
			return fmt.Errorf("initdb: %w: %s", err, out)
		}
		host := fmt.Sprintf("127.0.0.%d", i+1)
		proc, err := start(cred, filepath.Join(shared.dir, name+".log"), find("postgres"), "-D", dir, "-h", host, "-p", strconv.Itoa(port),
			"-k", dir, "-c", "fsync=off", "-c", "max_connections=200", "-c", "shared_buffers=16MB")
		if err != nil {
			return err
		}
		pg := &postgres{addr: netip.AddrPortFrom(netip.MustParseAddr(host), uint16(port)), proc: proc}
		shared.pg[i] = pg
		for _, db := range []string{"postgres", "app"} {
			statements := "CREATE DATABASE app"
			if db == "app" {
				statements = "CREATE TABLE writes (n int); CREATE TABLE who AS SELECT '" + name + "' AS name; CREATE DATABASE other TEMPLATE app"
			}
			if err := execOn(pg.addr, db, statements); err != nil {
				return err
			}
		}
	}
	return nil
}

// execOn runs statements as superuser, one after another, waiting for the server to come up.
func execOn(addr netip.AddrPort, db, statements string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		c, err := pgconn.Connect(ctx, fmt.Sprintf("host=%s port=%d user=postgres dbname=%s sslmode=disable", addr.Addr(), addr.Port(), db))
		if err != nil {
			if ctx.Err() != nil {
				return err
			}
			time.Sleep(20 * time.Millisecond)
			continue
		}
		for s := range strings.SplitSeq(statements, "; ") {
			if err = c.Exec(ctx, s).Close(); err != nil {
				break
			}
		}
		_ = c.Close(ctx)
		return err
	}
}

// bouncer is a running PgBouncer with its files.
type bouncer struct {
	tb     testing.TB
	config string // path of its ini
	port   int
	cred   *syscall.Credential
	proc   *process
	log    string
}

// settings are what each test's PgBouncer has; more replaces or adds.
func settings(port int, dir string, more pooler.Params) pooler.Params {
	s := pooler.Params{
		"listen_addr": "127.0.0.1", "listen_port": strconv.Itoa(port), "unix_socket_dir": "", "auth_type": "trust",
		"auth_file": filepath.Join(dir, "userlist.txt"), "admin_users": "admin", "pool_mode": "transaction",
		"default_pool_size": "20", "server_login_retry": "0", "server_tls_sslmode": "disable", "ignore_startup_parameters": "extra_float_digits",
		"logfile": filepath.Join(dir, "pgbouncer.log"),
	}
	maps.Copy(s, more)
	return s
}

// startBouncer writes the files and starts PgBouncer. Databases without a host get those of target.
func startBouncer(tb testing.TB, ini pooler.Ini, users pooler.UserList) *bouncer {
	tb.Helper()
	if find("pgbouncer") == "" {
		missing(tb, "pgbouncer")
	}
	cred, err := unprivileged()
	if err != nil {
		tb.Fatal(err)
	}
	dir, err := serverDir(cred)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	port := porttest.Free(tb)
	b := &bouncer{tb: tb, config: filepath.Join(dir, "pgbouncer.ini"), port: port, cred: cred, log: filepath.Join(dir, "pgbouncer.log")}
	ini.Settings = settings(port, dir, ini.Settings)
	if users == nil {
		users = pooler.UserList{{Name: "admin"}, {Name: "postgres"}}
	}
	must(tb, ini.WriteFile(b.config))
	must(tb, users.WriteFile(filepath.Join(dir, "userlist.txt")))
	if cred != nil {
		for _, f := range []string{b.config, filepath.Join(dir, "userlist.txt")} {
			must(tb, os.Chown(f, int(cred.Uid), int(cred.Gid)))
		}
	}
	b.start()
	tb.Cleanup(func() {
		b.proc.stop(syscall.SIGQUIT)
		if tb.Failed() {
			text, _ := os.ReadFile(b.log)
			tb.Logf("pgbouncer.log:\n%s", text)
		}
	})
	return b
}

func (b *bouncer) start() {
	b.tb.Helper()
	proc, err := start(b.cred, filepath.Join(filepath.Dir(b.config), "out.log"), find("pgbouncer"), "-q", b.config)
	must(b.tb, err)
	b.proc = proc
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", b.port))
		if err == nil {
			_ = c.Close()
			return
		}
		select {
		case <-proc.done:
			text, _ := os.ReadFile(b.log)
			b.tb.Fatalf("pgbouncer ended at once:\n%s", text)
		default:
		}
		if time.Now().After(end) {
			b.tb.Fatal(err)
		}
	}
}

func (b *bouncer) restart() {
	b.tb.Helper()
	b.proc.stop(syscall.SIGQUIT)
	b.start()
}

// console is a Connect for the test's PgBouncer.
func (b *bouncer) console() pooler.Connect {
	return pooler.ConnectWith(b.consoleConfig())
}

func (b *bouncer) consoleConfig() *pgconn.Config {
	b.tb.Helper()
	c, err := pgconn.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d user=admin dbname=pgbouncer sslmode=disable", b.port))
	must(b.tb, err)
	return c
}

// local has bounds that a busy machine does not reach: a login that a PAUSE cuts fails a client.
func (b *bouncer) local() *pooler.Local {
	return &pooler.Local{Config: b.config, Connect: b.console(), Timeout: 20 * time.Second, LoginWait: 20 * time.Second}
}

// questions counts what is sent to a console.
type questions struct{ n atomic.Int64 }

// connect is a Connect for the test's PgBouncer whose connections count.
func (q *questions) connect(b *bouncer) pooler.Connect {
	b.tb.Helper()
	c := b.consoleConfig()
	dial := c.DialFunc
	c.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		return counted{conn, q}, err
	}
	return pooler.ConnectWith(c)
}

type counted struct {
	net.Conn
	q *questions
}

func (c counted) Write(p []byte) (int, error) {
	c.q.n.Add(1)
	return c.Conn.Write(p)
}

// more waits until so many more have been sent that a Hold that waits has looked at the pooler again, whole.
func (q *questions) more(tb testing.TB) {
	tb.Helper()
	n := q.n.Load()
	eventually(tb, "the Hold looks again", func() bool { return q.n.Load() >= n+20 })
}

// giveUp begins a Hold that cannot drain, and ends its context once the pooler is held.
func giveUp(tb testing.TB, local *pooler.Local) error {
	tb.Helper()
	ctx, cancel := context.WithCancel(within(tb, 30*time.Second))
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- local.Hold(ctx) }()
	eventually(tb, "held", func() bool {
		st, err := local.State(ctx)
		return err == nil && st.Held
	})
	cancel()
	return <-ended
}

// client opens a client connection.
func (b *bouncer) client(db string) *pgconn.PgConn {
	b.tb.Helper()
	c, err := b.dial(db)
	must(b.tb, err)
	b.tb.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func (b *bouncer) dial(db string) (*pgconn.PgConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return pgconn.Connect(ctx, fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=%s sslmode=disable", b.port, db))
}

// db is an entry that points to an address.
func db(name string, to netip.AddrPort, more pooler.Params) pooler.Entry {
	p := pooler.Params{"host": to.Addr().String(), "port": strconv.Itoa(int(to.Port())), "user": "postgres"}
	maps.Copy(p, more)
	return pooler.Entry{Name: name, Params: p}
}

func target(mark string, hosts ...netip.AddrPort) pooler.Target {
	return pooler.Target{Hosts: hosts, Mark: mark}
}

// ask runs a query that returns one value.
func ask(c *pgconn.PgConn, sql string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	results, err := c.Exec(ctx, sql).ReadAll()
	if err != nil {
		return "", err
	}
	for _, r := range results {
		if len(r.Rows) == 1 && len(r.Rows[0]) == 1 {
			return string(r.Rows[0][0]), nil
		}
	}
	return "", nil
}

func within(tb testing.TB, d time.Duration) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	tb.Cleanup(cancel)
	return ctx
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// eventually waits for a condition.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatalf("not within 30 s: %s", what)
		}
	}
}

// noGoroutines fails the test when it leaves a goroutine of this package behind.
func noGoroutines(tb testing.TB) {
	tb.Helper()
	tb.Cleanup(func() {
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			buf := make([]byte, 1<<20)
			stacks := string(buf[:runtime.Stack(buf, true)])
			if !strings.Contains(stacks, "pooler.(*") && !strings.Contains(stacks, "pooler.Open") {
				return
			}
			if time.Now().After(end) {
				tb.Errorf("goroutines left:\n%s", stacks)
				return
			}
		}
	})
}

// mode returns a file's permission bits.
func mode(tb testing.TB, path string) fs.FileMode {
	tb.Helper()
	st, err := os.Stat(path)
	must(tb, err)
	return st.Mode().Perm()
}

// dialContext is a Connect to something that is not the console.
func (b *bouncer) dialContext(ctx context.Context) (*pgconn.PgConn, error) {
	return pgconn.Connect(ctx, fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=app sslmode=disable", b.port))
}

func parseTarget(tb testing.TB, hosts ...string) pooler.Target {
	tb.Helper()
	var t pooler.Target
	for _, h := range hosts {
		ap, err := netip.ParseAddrPort(h)
		must(tb, err)
		t.Hosts = append(t.Hosts, ap)
	}
	return t
}

package pooler

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Local controls one PgBouncer (1.19 or later) on this machine: through its console and its configuration file.
// Config and Connect are required, the zero value of the rest is the default. The methods are safe for concurrent
// use as far as PgBouncer is: a Route may run beside a Hold, which then returns [ErrReleased].
//
// Without Keep nothing is kept between calls: each opens its own console connections and closes them before it returns.
type Local struct {
	// Config is the path of PgBouncer's own configuration file, the one that it was started with. Route replaces it
	// atomically; mode and owner stay. Its directory must be writable.
	Config string
	// Connect opens the admin console; see [ConnectWith]. The user must be in admin_users to Hold or Route.
	Connect Connect
	// Databases limits everything to these entries of the [databases] section, each with a line of its own. Hold is
	// then PAUSE db for each; set min_pool_size to 0 for them, since PgBouncer keeps launching logins for it while
	// only a database is paused. Empty: all of the file, and Hold is the global PAUSE, which is the better one where
	// the pooler serves one cluster.
	Databases []string
	// Timeout bounds each console command but the wait for a drain, and each wait of a Route. Zero: 2 s.
	Timeout time.Duration
	// LoginWait bounds how long Hold waits for a moment without a server connection in login: a PAUSE cuts it, and
	// PgBouncer answers clients of that pool with errors until a later login succeeds. Zero: 200 ms.
	LoginWait time.Duration
	// Keep keeps one console connection open from call to call, so that a hold begins at once and not with a login of
	// some milliseconds. It counts as a client: SHUTDOWN WAIT_FOR_CLIENTS waits until Close has ended it.
	Keep bool
	// NoSync leaves out the fsync of Config, some milliseconds of each Route on a busy disk. A power cut may then
	// leave the file broken: for folders that nobody comes back to.
	NoSync bool

	mu   sync.Mutex
	kept *Console // idle; nil: none
}

// Close ends the connection that Keep has kept. The Local can be used again.
func (l *Local) Close() error {
	if c := l.take(); c != nil {
		return c.Close()
	}
	return nil
}

// take gives the kept connection to one caller.
func (l *Local) take() *Console {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.kept
	l.kept = nil
	return c
}

// keep takes a connection back, or reports that there is no place for it.
func (l *Local) keep(c *Console) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.Keep || l.kept != nil || c.broken != nil {
		return false
	}
	l.kept = c
	return true
}

// Validate reports, with ErrInvalid, the first field that cannot be right. All methods begin with it.
func (l *Local) Validate() error {
	switch {
	case l.Config == "":
		return fmt.Errorf("%w: Local.Config is empty: want the path of pgbouncer.ini", ErrInvalid)
	case l.Connect == nil:
		return fmt.Errorf("%w: Local.Connect is nil: want a function that opens the admin console", ErrInvalid)
	case l.Timeout < 0 || l.LoginWait < 0:
		return fmt.Errorf("%w: Local.Timeout or Local.LoginWait is negative", ErrInvalid)
	}
	for i, name := range l.Databases {
		if err := checkName(name); err != nil || name == "*" || slices.Contains(l.Databases[:i], name) {
			return fmt.Errorf("%w: Local.Databases[%d] = %q: want distinct names of lines in [databases], not *", ErrInvalid, i, name)
		}
	}
	return nil
}

func (l *Local) timeout() time.Duration {
	if l.Timeout == 0 {
		return 2 * time.Second
	}
	return l.Timeout
}

// State reads what the pooler is doing. It changes nothing.
func (l *Local) State(ctx context.Context) (State, error) {
	s, err := l.open(ctx, "state")
	if err != nil {
		return State{}, err
	}
	defer s.close()
	file, err := os.ReadFile(l.Config)
	if err != nil {
		return State{}, s.fail(err, "")
	}
	f, err := readTarget(file, l.Databases)
	if err != nil {
		return State{}, s.fail(err, "")
	}
	live, err := s.look(ctx, f)
	if err != nil {
		return State{}, s.fail(err, "")
	}
	servers, err := show[SocketRow](ctx, s, "SERVERS")
	if err != nil {
		return State{}, s.fail(err, "")
	}
	st := State{
		Version: s.console.Version(), Target: live.target, Refusing: live.known && live.target.Refuses(), Reason: live.reason,
		Held: live.held(), Drained: live.drained(), Clients: live.clients, Waiting: live.waiting, At: time.Now(),
	}
	if f.known {
		st.File = f.target
	}
	for _, row := range servers {
		if live.matters(row.Database) {
			if st.Servers == nil {
				st.Servers = map[netip.AddrPort]int{}
			}
			st.Servers[row.address()]++
		}
	}
	return st, nil
}

// session is one call's console connection, with what its errors need.
type session struct {
	l       *Local
	op      string
	console *Console
}

// open validates, connects and checks the version.
func (l *Local) open(ctx context.Context, op string) (*session, error) {
	s := &session{l: l, op: op}
	if err := l.Validate(); err != nil {
		return nil, s.fail(err, "")
	}
	if s.console = l.take(); s.console != nil {
		if _, err := show[struct{}](ctx, s, "VERSION"); err == nil {
			return s, nil
		}
		_ = s.console.Close() // PgBouncer was restarted, or has ended it
	}
	c, err := s.dial(ctx)
	if err != nil {
		return nil, s.fail(err, "check that PgBouncer runs, that it is not shutting down, and the console's address and credentials")
	}
	s.console = c
	if !versionAtLeast(c.Version(), 1, 19) {
		s.close()
		return nil, s.fail(fmt.Errorf("PgBouncer %s has no SHOW STATE", c.Version()), "update PgBouncer to 1.19 or later")
	}
	return s, nil
}

func (s *session) dial(ctx context.Context) (*Console, error) {
	ctx, cancel := context.WithTimeout(ctx, s.l.timeout())
	defer cancel()
	return Open(ctx, s.l.Connect)
}

func (s *session) close() {
	if s.console != nil && !s.l.keep(s.console) {
		_ = s.console.Close()
	}
}

func (s *session) fail(err error, hint string) error {
	if err == nil {
		return nil
	}
	if already, ok := errors.AsType[*Error](err); ok {
		return already
	}
	return &Error{Pooler: s.l.Config, Op: s.op, Hint: hint, Err: err}
}

// exec runs one quick command.
func (s *session) exec(ctx context.Context, command string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, s.l.timeout())
	defer cancel()
	return s.console.Exec(ctx, command, args...)
}

func (s *session) set(ctx context.Context, key, value string) error {
	ctx, cancel := context.WithTimeout(ctx, s.l.timeout())
	defer cancel()
	return s.console.Set(ctx, key, value)
}

func show[T any](ctx context.Context, s *session, what string) ([]T, error) {
	ctx, cancel := context.WithTimeout(ctx, s.l.timeout())
	defer cancel()
	return Show[T](ctx, s.console, what)
}

// address is the server's address and port; zero for a Unix socket.
func (r SocketRow) address() netip.AddrPort {
	addr, err := netip.ParseAddr(r.Addr)
	if err != nil {
		return netip.AddrPort{}
	}
	port, _ := strconv.ParseUint(r.Port, 10, 16)
	return netip.AddrPortFrom(addr.Unmap(), uint16(port))
}

func versionAtLeast(version string, major, minor int) bool {
	var a, b int
	n, _ := fmt.Sscanf(version, "%d.%d", &a, &b) // "1.26rc1" has them too
	return n == 2 && (a > major || a == major && b >= minor)
}

package pooler_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/pooler"
)

func TestShowReadsColumnsByName(t *testing.T) {
	f := &fakeConsole{version: "1.99.0", answer: func(string) ([][]string, string) {
		return table(`
			brand_new port name  paused host      disabled
			7         5432 app   1      127.0.0.1 0
			8         6432 other 0      NULL      1`), ""
	}}
	f.start(t)
	ctx := within(t, 30*time.Second)
	c, err := pooler.Open(ctx, f.connect)
	must(t, err)
	defer c.Close()
	rows, err := pooler.Show[pooler.DatabaseRow](ctx, c, "DATABASES")
	must(t, err)
	want := []pooler.DatabaseRow{
		{Name: "app", Host: "127.0.0.1", Port: "5432", Paused: true},
		{Name: "other", Port: "6432", Disabled: true},
	}
	if len(rows) != 2 || rows[0] != want[0] || rows[1] != want[1] {
		t.Errorf("got %+v, want %+v", rows, want)
	}
	if _, err := pooler.Show[struct {
		X string `show:"no_such"`
	}](ctx, c, "DATABASES"); err == nil || !strings.Contains(err.Error(), `"no_such"`) {
		t.Errorf("an absent column: %v", err)
	}
	if _, err := pooler.Show[struct {
		X string `show:"no_such,optional"`
	}](ctx, c, "DATABASES"); err != nil {
		t.Errorf("an absent optional column: %v", err)
	}
	if _, err := pooler.Show[struct {
		X int `show:"name"`
	}](ctx, c, "DATABASES"); err == nil {
		t.Error("a text was read as a number")
	}
}

func TestArgumentsAreQuoted(t *testing.T) {
	f := &fakeConsole{version: "1.24.1", answer: func(string) ([][]string, string) { return [][]string{}, "" }}
	f.start(t)
	ctx := within(t, 30*time.Second)
	c, err := pooler.Open(ctx, f.connect)
	must(t, err)
	defer c.Close()
	must(t, c.Exec(ctx, "PAUSE", "app"))
	must(t, c.Exec(ctx, "PAUSE", `my-"db".x`))
	must(t, c.Exec(ctx, "SHUTDOWN", "WAIT_FOR_CLIENTS"))
	must(t, c.Set(ctx, "log_prefix", "it's"))
	if got, want := strings.Join(f.sent(""), "|"), `PAUSE app|PAUSE "my-""db"".x"|SHUTDOWN WAIT_FOR_CLIENTS|SET log_prefix = 'it''s'`; got != want {
		t.Errorf("sent %s\nwant %s", got, want)
	}
	for _, bad := range []string{"", strings.Repeat("x", 64), "a\x00b"} {
		if err := c.Exec(ctx, "PAUSE", bad); !errors.Is(err, pooler.ErrInvalid) {
			t.Errorf("argument %q: %v", bad, err)
		}
	}
	if err := c.Exec(ctx, "PAUSE; RESUME"); !errors.Is(err, pooler.ErrInvalid) {
		t.Errorf("two commands: %v", err)
	}
	if len(f.sent("")) != 4 {
		t.Errorf("something refused was sent: %v", f.sent(""))
	}
}

func TestCommandErrorIsTypedAndLeavesTheConsoleUsable(t *testing.T) {
	f := &fakeConsole{version: "1.24.1", answer: func(command string) ([][]string, string) {
		if command == "RESUME" {
			return nil, "pooler is not paused/suspended"
		}
		return [][]string{}, ""
	}}
	f.start(t)
	ctx := within(t, 30*time.Second)
	c, err := pooler.Open(ctx, f.connect)
	must(t, err)
	defer c.Close()
	var refused *pooler.CommandError
	if err := c.Exec(ctx, "RESUME"); !errors.As(err, &refused) || refused.Command != "RESUME" || refused.Code != "08P01" {
		t.Errorf("RESUME: %v", err)
	}
	must(t, c.Exec(ctx, "RELOAD"))
}

func TestAnEndedContextClosesTheSocketAndSendsNoCancelRequest(t *testing.T) {
	noGoroutines(t)
	cause := errors.New("the caller's reason")
	ctx, cancel := context.WithCancelCause(context.Background())
	f := &fakeConsole{version: "1.24.1", answer: func(string) ([][]string, string) {
		cancel(cause) // once the command has arrived
		return nil, ""
	}}
	f.start(t)
	c, err := pooler.Open(within(t, 30*time.Second), f.connect)
	must(t, err)
	if err := c.Exec(ctx, "PAUSE"); !errors.Is(err, context.Canceled) || !errors.Is(err, cause) {
		t.Errorf("PAUSE: %v, want the context's error and its cause", err)
	}
	if err := c.Exec(context.Background(), "RESUME"); err == nil || !strings.Contains(err.Error(), "not usable") {
		t.Errorf("after that: %v", err)
	}
	time.Sleep(50 * time.Millisecond)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.opened != 1 {
		t.Errorf("%d connections were opened, want 1: a cancel request would be the second", f.opened)
	}
}

func TestOpenRefusesWhatIsNotAConsole(t *testing.T) {
	a, _ := servers(t)
	pb := startBouncer(t, pooler.Ini{Databases: []pooler.Entry{db("app", a, nil)}}, nil)
	_, err := pooler.Open(within(t, 30*time.Second), pb.dialContext)
	if err == nil || !strings.Contains(err.Error(), "not the console") {
		t.Errorf("a database's connection: %v", err)
	}
}

// fakeFile is a configuration for a fake console.
func fakeFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pgbouncer.ini")
	must(t, os.WriteFile(path, []byte("[pgbouncer]\n[databases]\napp = host=10.0.0.1 port=5432\n"), 0o600))
	return path
}

// fakePooler answers the commands that Local sends, from a few numbers.
type fakePooler struct {
	host          string
	paused        atomic.Bool
	logins        atomic.Int32
	oldServer     atomic.Bool // an active server of 10.0.0.1
	servers       string      // header of SHOW SERVERS, which depends on the version
	killed        atomic.Bool
	unlinked      bool // the old server's client is not among the clients
	loginsAtPause int32
	reload        func()
}

func (p *fakePooler) answer(command string) ([][]string, string) {
	switch verb, arg, _ := strings.Cut(command, " "); verb + " " + arg {
	case "SHOW STATE":
		return table(fmt.Sprintf("key value\nactive %s\npaused %s\nsuspended no", yes(!p.paused.Load()), yes(p.paused.Load()))), ""
	case "SHOW DATABASES":
		return table("name host port paused disabled\npgbouncer NULL 6432 0 0\napp " + p.host + " 5432 0 0"), ""
	case "SHOW POOLS":
		active := 0
		if p.oldServer.Load() {
			active = 1
		}
		return table(fmt.Sprintf(`
			database user cl_active cl_waiting sv_active sv_tested sv_login maxwait pool_mode
			app      u    1         0          %d        0         %d       0       transaction`, active, p.logins.Load())), ""
	case "SHOW SERVERS":
		rows := "user database state addr port close_needed ptr link"
		if p.oldServer.Load() {
			rows += "\nu app active 10.0.0.1 5432 1 0x1 0x2"
		}
		return table(rows), ""
	case "SHOW CLIENTS":
		if p.unlinked {
			return table("user database state addr port close_needed ptr link id"), ""
		}
		return table("user database state addr port close_needed ptr link id\nu app active 10.0.0.9 99 0 0x2 0x1 7\nu app active 10.0.0.9 98 0 0x3 NULL 8"), ""
	case "PAUSE ":
		p.loginsAtPause = p.logins.Load()
		p.paused.Store(true)
	case "RESUME ":
		p.paused.Store(false)
	case "RELOAD ":
		p.reload()
	case "KILL_CLIENT 7":
		p.killed.Store(true)
		p.oldServer.Store(false)
	default:
		return nil, "invalid command"
	}
	return [][]string{}, ""
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func TestHoldDoesNotCatchALogin(t *testing.T) {
	p := &fakePooler{host: "10.0.0.1"}
	f := &fakeConsole{version: "1.24.1", answer: p.answer}
	f.start(t)
	local := &pooler.Local{Config: fakeFile(t), Connect: f.connect, Timeout: 20 * time.Second, LoginWait: 20 * time.Second}
	p.logins.Store(1)
	time.AfterFunc(20*time.Millisecond, func() { p.logins.Store(0) })
	must(t, local.Hold(within(t, 30*time.Second)))
	if p.loginsAtPause != 0 {
		t.Error("PAUSE was sent while a server was in login")
	}
	// Bounded: a server that hangs in login does not keep the hold away.
	p.paused.Store(false)
	p.logins.Store(1)
	local.LoginWait = 30 * time.Millisecond
	begin := time.Now()
	must(t, local.Hold(within(t, 30*time.Second)))
	if took := time.Since(begin); took < local.LoginWait {
		t.Errorf("Hold took %v with LoginWait %v", took, local.LoginWait)
	}
}

func TestRouteBefore124WaitsForWhatItCannotEnd(t *testing.T) {
	for _, c := range []struct {
		version string
		killed  bool
	}{{"1.23.1", false}, {"1.24.0", true}, {"1.26rc1", true}} {
		t.Run(c.version, func(t *testing.T) {
			p := &fakePooler{host: "10.0.0.1"}
			p.reload = func() { p.host = "10.0.0.2" }
			p.paused.Store(true)
			p.oldServer.Store(true)
			f := &fakeConsole{version: c.version, answer: p.answer}
			f.start(t)
			local := &pooler.Local{Config: fakeFile(t), Connect: f.connect, Timeout: 2 * time.Second}
			err := local.Route(within(t, 30*time.Second), parseTarget(t, "10.0.0.2:5432"))
			if p.killed.Load() != c.killed || c.killed != (err == nil) {
				t.Fatalf("killed %v, error %v", p.killed.Load(), err)
			}
			if !c.killed && (!errors.Is(err, pooler.ErrLeftover) || !strings.Contains(err.Error(), "1.24")) {
				t.Errorf("error %v, want ErrLeftover and what to do", err)
			}
			if p.paused.Load() {
				t.Error("the pooler was not resumed")
			}
			if kills := f.sent("KILL_CLIENT"); len(kills) > 1 {
				t.Errorf("more than the linked client was ended: %v", kills)
			}
		})
	}
}

func TestRouteToTheSameTargetEndsNobody(t *testing.T) {
	p := &fakePooler{host: "10.0.0.2"}
	p.reload = func() {}
	p.oldServer.Store(true)
	f := &fakeConsole{version: "1.24.1", answer: p.answer}
	f.start(t)
	local := &pooler.Local{Config: fakeFile(t), Connect: f.connect, Timeout: 2 * time.Second}
	err := local.Route(within(t, 30*time.Second), parseTarget(t, "10.0.0.2:5432"))
	if !errors.Is(err, pooler.ErrLeftover) || p.killed.Load() {
		t.Errorf("error %v, killed %v", err, p.killed.Load())
	}
}

// A login that asks auth_query on a hung server has no client to disconnect. The others must not wait for it.
func TestRouteResumesBesideAServerWithoutAClient(t *testing.T) {
	p := &fakePooler{host: "10.0.0.1", unlinked: true}
	p.reload = func() { p.host = "10.0.0.2" }
	p.paused.Store(true)
	p.oldServer.Store(true)
	f := &fakeConsole{version: "1.24.1", answer: p.answer}
	f.start(t)
	local := &pooler.Local{Config: fakeFile(t), Connect: f.connect, Timeout: time.Hour} // others' wait has a bound of its own
	routed := make(chan error, 1)
	go func() { routed <- local.Route(within(t, time.Minute), parseTarget(t, "10.0.0.2:5432")) }()
	eventually(t, "resumed", func() bool { return !p.paused.Load() })
	p.oldServer.Store(false)
	must(t, <-routed)
}

// Before some version a console cannot be asked what "*" stands for. The file and RELOAD's answer must do.
func TestWildcardThatCannotBeSeen(t *testing.T) {
	p := &fakePooler{host: "10.0.0.1"}
	p.reload = func() {}
	f := &fakeConsole{version: "1.19.0", answer: func(command string) ([][]string, string) {
		if command == "SHOW DATABASES" {
			return table("name host port paused disabled\npgbouncer NULL 6432 0 0"), ""
		}
		return p.answer(command)
	}}
	f.start(t)
	path := filepath.Join(t.TempDir(), "pgbouncer.ini")
	must(t, os.WriteFile(path, []byte("[databases]\n* = host=10.0.0.1\n"), 0o600))
	local := &pooler.Local{Config: path, Connect: f.connect}
	st, err := local.State(within(t, 30*time.Second))
	must(t, err)
	if st.Reason == "" || st.Refusing || !st.Target.Refuses() || len(st.File.Hosts) != 1 {
		t.Errorf("%+v, want a reason, and the file's target", st)
	}
	must(t, local.Route(within(t, 30*time.Second), parseTarget(t, "10.0.0.2:5432")))
	if len(f.sent("RELOAD")) != 1 {
		t.Error("no RELOAD")
	}
}

func TestTooOld(t *testing.T) {
	p := &fakePooler{host: "10.0.0.1"}
	f := &fakeConsole{version: "1.18.0", answer: p.answer}
	f.start(t)
	_, err := (&pooler.Local{Config: fakeFile(t), Connect: f.connect}).State(within(t, 30*time.Second))
	if err == nil || !strings.Contains(err.Error(), "1.19") {
		t.Errorf("PgBouncer 1.18: %v", err)
	}
}

func TestErrorsHoldNoSecret(t *testing.T) {
	f := &fakeConsole{version: "1.24.1", answer: func(string) ([][]string, string) { return nil, "broken" }}
	f.start(t)
	path := filepath.Join(t.TempDir(), "pgbouncer.ini")
	for _, text := range []string{
		"[databases]\napp = host=10.0.0.1 password=hunter2\n",
		"[databases]\napp = host=10.0.0.1 password='hunter2\n",
		"[databases]\napp = host=10.0.0.1 password='hunter2'x\n",
		"[databases]\nhunter2\n",
		"[databases]\napp = hunter2\n",
	} {
		must(t, os.WriteFile(path, []byte(text), 0o600))
		local := &pooler.Local{Config: path, Connect: f.connect}
		_, err := local.State(within(t, 30*time.Second))
		_, err2 := pooler.ParseIni([]byte(text))
		_, err3 := pooler.Rewrite([]byte(text), nil, pooler.Target{})
		if err == nil {
			t.Errorf("%q: no error", text)
		}
		if all := fmt.Sprintf("%v %+v %v %v", err, err, err2, err3); strings.Contains(all, "hunter2") {
			t.Errorf("an error holds the password: %s", all)
		}
	}
}

package pooler_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconvoy/pgconvoy/pooler"
)

func TestHoldAndRouteMoveWritersWithoutAFailedQuery(t *testing.T) {
	noGoroutines(t)
	a, b := servers(t)
	pb := startBouncer(t, pooler.Ini{Databases: []pooler.Entry{db("app", a, nil)}}, nil)
	local := pb.local()
	ctx := within(t, 60*time.Second)

	before := countRows(t, a) + countRows(t, b)
	var acknowledged, failed atomic.Int64
	var lastError atomic.Value
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for range 10 {
		c := pb.client("app")
		writers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := ask(c, "INSERT INTO writes VALUES (9)"); err != nil {
					failed.Add(1)
					lastError.Store(err.Error())
					return
				}
				acknowledged.Add(1)
			}
		})
	}
	targets := []pooler.Target{target("1", b), target("2", a)}
	var longest time.Duration
	for round := range 10 {
		time.Sleep(20 * time.Millisecond)
		must(t, local.Hold(ctx))
		st, err := local.State(ctx)
		must(t, err)
		if !st.Held || !st.Drained || len(st.Servers) != 0 || st.Clients != 10 {
			t.Fatalf("after Hold: %+v", st)
		}
		begin := time.Now()
		must(t, local.Route(ctx, targets[round%2]))
		longest = max(longest, time.Since(begin))
		st, err = local.State(ctx)
		must(t, err)
		if st.Held || !st.Target.SameHosts(targets[round%2]) || st.Target.Mark != targets[round%2].Mark {
			t.Fatalf("after Route: %+v", st)
		}
	}
	n := acknowledged.Load()
	eventually(t, "writers go on", func() bool { return acknowledged.Load() > n+100 || failed.Load() > 0 })
	close(stop)
	writers.Wait()
	if failed.Load() != 0 {
		t.Fatalf("%d writers failed, last: %v", failed.Load(), lastError.Load())
	}
	if rows := countRows(t, a) + countRows(t, b) - before; rows != int(acknowledged.Load()) {
		t.Errorf("%d rows for %d acknowledged writes", rows, acknowledged.Load())
	}
	t.Logf("%d transactions over 10 moves, longest Route %v", acknowledged.Load(), longest)
}

// countRows counts the writers' rows on one server, straight.
func countRows(t *testing.T, addr netip.AddrPort) int {
	t.Helper()
	ctx := within(t, 30*time.Second)
	c, err := pgconn.Connect(ctx, fmt.Sprintf("host=%s port=%d user=postgres dbname=app sslmode=disable", addr.Addr(), addr.Port()))
	must(t, err)
	defer c.Close(ctx)
	text, err := ask(c, "SELECT count(*) FROM writes WHERE n = 9")
	must(t, err)
	n, err := strconv.Atoi(text)
	must(t, err)
	return n
}

func TestHoldThatNeverDrains(t *testing.T) {
	noGoroutines(t)
	a, b := servers(t)
	pb := startBouncer(t, pooler.Ini{Databases: []pooler.Entry{db("app", a, nil)}}, nil)
	local := pb.local()

	stuck, other := pb.client("app"), pb.client("app")
	for _, sql := range []string{"BEGIN", "INSERT INTO writes VALUES (2)"} {
		_, err := ask(stuck, sql)
		must(t, err)
	}
	err := giveUp(t, local)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("Hold with an open transaction: %v, want the context's error", err)
	}
	if !strings.Contains(err.Error(), "1 of app") || !strings.Contains(err.Error(), pb.config) {
		t.Errorf("the error does not say what it waited for and where: %v", err)
	}
	st, err := local.State(within(t, 30*time.Second))
	must(t, err)
	if !st.Held || st.Drained || st.Servers[a] != 1 {
		t.Fatalf("after the context ended: %+v, want held, not drained, one server", st)
	}
	// New work waits.
	done := make(chan error, 1)
	go func() {
		who, err := ask(other, "SELECT name FROM who")
		if err == nil && who != "b" {
			err = errors.New("answered by " + who)
		}
		done <- err
	}()
	eventually(t, "the other client waits", func() bool {
		st, err := local.State(within(t, 30*time.Second))
		return err == nil && st.Waiting == 1
	})
	select {
	case err := <-done:
		t.Fatalf("a query was answered by a held pooler: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	// The transaction goes on.
	if _, err := ask(stuck, "INSERT INTO writes VALUES (2)"); err != nil {
		t.Fatalf("the open transaction: %v", err)
	}

	// A Route beside a Hold that waits: the stuck client is ended, the other is answered by the new server.
	var asked questions
	beside := pb.local()
	beside.Connect = asked.connect(pb)
	holding := make(chan error, 1)
	go func() { holding <- beside.Hold(within(t, 30*time.Second)) }()
	asked.more(t) // it waits: one that began after the Route would hold anew
	begin := time.Now()
	must(t, local.Route(within(t, 30*time.Second), target("m", b)))
	t.Logf("Route beside a waiting Hold: %v", time.Since(begin))
	if err := <-done; err != nil {
		t.Fatalf("the waiting client: %v", err)
	}
	if err := <-holding; err != nil && !errors.Is(err, pooler.ErrReleased) { // nil: it saw the drain before the RESUME
		t.Errorf("the Hold: %v, want ErrReleased", err)
	}
	if _, err := ask(stuck, "SELECT 1"); err == nil || !strings.Contains(err.Error(), "admin forced disconnect") {
		t.Errorf("the client of the old server: %v, want it disconnected", err)
	}
	st, err = local.State(within(t, 30*time.Second))
	must(t, err)
	if st.Held || st.Servers[a] != 0 || st.Clients != 1 {
		t.Errorf("after Route: %+v, want one client and no server at %s", st, a)
	}
}

// Any completion answers all waiting consoles, and a second global PAUSE is an error: two holds at a time both end well.
func TestTwoHolds(t *testing.T) {
	noGoroutines(t)
	a, _ := servers(t)
	pb := startBouncer(t, pooler.Ini{Databases: []pooler.Entry{db("app", a, nil)}}, nil)
	c := pb.client("app")
	_, err := ask(c, "BEGIN")
	must(t, err)
	results := make(chan error, 2)
	for range 2 {
		go func() { results <- pb.local().Hold(within(t, 30*time.Second)) }()
	}
	time.Sleep(50 * time.Millisecond)
	select {
	case err := <-results:
		t.Fatalf("a Hold ended before the transaction: %v", err)
	default:
	}
	_, err = ask(c, "COMMIT")
	must(t, err)
	for range 2 {
		must(t, <-results)
	}
}

// A RESUME leaves PgBouncer's answer to PAUSE out for ever. Hold notices.
func TestHoldThatSomebodyResumes(t *testing.T) {
	noGoroutines(t)
	a, _ := servers(t)
	pb := startBouncer(t, pooler.Ini{Databases: []pooler.Entry{db("app", a, nil), db("other", a, nil)}}, nil)
	_, err := ask(pb.client("app"), "BEGIN")
	must(t, err)
	ctx := within(t, 30*time.Second)
	console, err := pooler.Open(ctx, pb.console())
	must(t, err)
	defer console.Close()
	var asked questions
	for _, databases := range [][]string{nil, {"app", "other"}} {
		local := pb.local()
		local.Connect, local.Databases = asked.connect(pb), databases
		held := make(chan error, 1)
		go func() { held <- local.Hold(ctx) }()
		eventually(t, "held", func() bool {
			st, err := pb.local().State(ctx)
			return err == nil && st.Held
		})
		asked.more(t) // until the Hold has seen it too
		must(t, console.Exec(ctx, "RESUME", databases[:min(1, len(databases))]...))
		if err := <-held; !errors.Is(err, pooler.ErrReleased) {
			t.Errorf("Hold of %q: %v, want ErrReleased", databases, err)
		}
	}
}

// A stats user may look and not touch; the error says what is missing. A broken file keeps no hold away.
func TestHoldNeedsAnAdminAndNoFile(t *testing.T) {
	a, _ := servers(t)
	pb := startBouncer(t, pooler.Ini{Settings: pooler.Params{"stats_users": "postgres"}, Databases: []pooler.Entry{db("app", a, nil)}}, nil)
	ctx := within(t, 30*time.Second)
	local := pb.local()
	config, err := pgconn.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=pgbouncer sslmode=disable", pb.port))
	must(t, err)
	local.Connect = pooler.ConnectWith(config)
	if _, err := local.State(ctx); err != nil {
		t.Errorf("State as a stats user: %v", err)
	}
	var refused *pooler.CommandError
	if err := local.Hold(ctx); !errors.As(err, &refused) || !strings.Contains(err.Error(), "admin_users") {
		t.Errorf("Hold as a stats user: %v", err)
	}
	must(t, os.WriteFile(pb.config, []byte("broken"), 0o600))
	must(t, pb.local().Hold(ctx))
}

func TestRouteUnheldEndsOnlyTransactionsOfTheOldServer(t *testing.T) {
	noGoroutines(t)
	a, b := servers(t)
	pb := startBouncer(t, pooler.Ini{Databases: []pooler.Entry{db("app", a, nil)}}, nil)
	local := pb.local()
	busy, idle := pb.client("app"), pb.client("app")
	_, err := ask(busy, "BEGIN")
	must(t, err)
	_, err = ask(idle, "SELECT 1")
	must(t, err)
	begin := time.Now()
	must(t, local.Route(within(t, 30*time.Second), target("m", b)))
	t.Logf("Route while not held: %v", time.Since(begin))
	if who, err := ask(idle, "SELECT name FROM who"); err != nil || who != "b" {
		t.Errorf("the idle client: %q, %v", who, err)
	}
	if _, err := ask(busy, "SELECT 1"); err == nil {
		t.Error("a transaction went on at the old server")
	}
	// The same again changes nothing and ends nobody.
	_, err = ask(idle, "BEGIN")
	must(t, err)
	stat, err := os.Stat(pb.config)
	must(t, err)
	must(t, local.Route(within(t, 30*time.Second), target("m", b)))
	if _, err := ask(idle, "COMMIT"); err != nil {
		t.Errorf("an idempotent Route ended a transaction: %v", err)
	}
	if again, err := os.Stat(pb.config); err != nil || !os.SameFile(stat, again) {
		t.Errorf("an idempotent Route wrote the file: %v", err)
	}
}

func TestStateSeesAnOrphanedPause(t *testing.T) {
	a, _ := servers(t)
	pb := startBouncer(t, pooler.Ini{Databases: []pooler.Entry{db("app", a, nil), db("other", a, nil)}}, nil)
	ctx := within(t, time.Minute)
	c, err := pooler.Open(ctx, pb.console())
	must(t, err)
	must(t, c.Exec(ctx, "PAUSE", "other"))
	must(t, c.Close())
	st, err := pb.local().State(ctx)
	must(t, err)
	if !st.Held || st.Drained {
		t.Errorf("one of two databases paused: %+v, want held and not drained", st)
	}
	must(t, pb.local().Hold(ctx))
	must(t, pb.local().Hold(ctx)) // idempotent
	st, err = pb.local().State(ctx)
	must(t, err)
	if !st.Held || !st.Drained || st.Version == "" {
		t.Errorf("paused: %+v", st)
	}
	// Route undoes both kinds.
	must(t, pb.local().Route(ctx, target("", a)))
	st, err = pb.local().State(ctx)
	must(t, err)
	if st.Held || st.Target.Mark != "" {
		t.Errorf("after Route: %+v", st)
	}
}

func TestRefuse(t *testing.T) {
	noGoroutines(t)
	a, b := servers(t)
	pb := startBouncer(t, pooler.Ini{Databases: []pooler.Entry{db("app", a, nil)}}, nil)
	local := pb.local()
	ctx := within(t, 30*time.Second)
	first, second, third := pb.client("app"), pb.client("app"), pb.client("app")
	_, err := ask(first, "SELECT 1")
	must(t, err)
	must(t, local.Hold(ctx))
	queued := make(chan error, 1)
	go func() {
		_, err := ask(second, "SELECT 1")
		queued <- err
	}()
	eventually(t, "the client waits", func() bool {
		st, err := local.State(ctx)
		return err == nil && st.Waiting == 1
	})
	begin := time.Now()
	must(t, local.Route(ctx, target("lost")))
	if err := <-queued; err == nil {
		t.Error("a queued client was answered by a refusing pooler")
	}
	t.Logf("queued client refused after %v", time.Since(begin))
	begin = time.Now()
	// PgBouncer needs up to 0.4 s; alone it would keep these clients for query_wait_timeout, two minutes.
	if _, err := ask(third, "SELECT 1"); err == nil || time.Since(begin) > 10*time.Second {
		t.Errorf("an idle client of a refusing pooler: %v after %v, want an error at once", err, time.Since(begin))
	}
	begin = time.Now()
	if c, err := pb.dial("app"); err == nil || time.Since(begin) > 10*time.Second {
		t.Errorf("a new client: %v after %v, want an error at once", err, time.Since(begin))
		if err == nil {
			_ = c.Close(ctx)
		}
	}
	st, err := local.State(ctx)
	must(t, err)
	if !st.Refusing || st.Held || !st.Target.Refuses() || st.Target.Mark != "lost" {
		t.Errorf("refusing: %+v", st)
	}
	must(t, local.Route(ctx, target("found", b)))
	begin = time.Now()
	tries := 0
	eventually(t, "clients are served again", func() bool {
		tries++
		c, err := pb.dial("app")
		if err != nil {
			return false
		}
		defer c.Close(ctx)
		who, err := ask(c, "SELECT name FROM who")
		return err == nil && who == "b"
	})
	t.Logf("healed after %v, %d tries", time.Since(begin), tries)
	if got := setting(t, pb, "query_wait_timeout"); got != "120" {
		t.Errorf("query_wait_timeout is %s after healing, want the file's", got)
	}
}

// In per-database mode nothing global is set; clients are refused all the same.
func TestRefusePerDatabase(t *testing.T) {
	noGoroutines(t)
	a, _ := servers(t)
	pb := startBouncer(t, pooler.Ini{Databases: []pooler.Entry{db("app", a, nil), db("other", a, nil)}}, nil)
	local := pb.local()
	local.Databases = []string{"app"}
	ctx := within(t, 30*time.Second)
	c, idle, other := pb.client("app"), pb.client("app"), pb.client("other")
	must(t, local.Hold(ctx))
	queued := make(chan error, 1)
	go func() {
		_, err := ask(c, "SELECT 1")
		queued <- err
	}()
	eventually(t, "the client waits", func() bool {
		st, err := local.State(ctx)
		return err == nil && st.Waiting == 1
	})
	must(t, local.Route(ctx, target("lost")))
	begin := time.Now()
	if err := <-queued; err == nil {
		t.Error("the queued client was answered")
	}
	if _, err := ask(idle, "SELECT 1"); err == nil {
		t.Error("an idle client was answered")
	}
	for range 2 {
		if c, err := pb.dial("app"); err == nil {
			_ = c.Close(ctx)
			t.Error("a new client was let in")
		}
	}
	if took := time.Since(begin); took > 20*time.Second { // alone: query_wait_timeout, two minutes
		t.Errorf("refusing four clients took %v", took)
	}
	must(t, local.Route(ctx, target("lost"))) // idempotent
	st, err := local.State(ctx)
	must(t, err)
	if !st.Refusing || st.Held || st.Target.Mark != "lost" {
		t.Errorf("refusing: %+v", st)
	}
	if _, err := ask(other, "SELECT 1"); err != nil {
		t.Errorf("the other database: %v", err)
	}
	if got := setting(t, pb, "query_wait_timeout"); got != "120" {
		t.Errorf("query_wait_timeout became %s for all", got)
	}
	must(t, local.Route(ctx, target("found", a)))
	if who, err := ask(pb.client("app"), "SELECT name FROM who"); err != nil || who != "a" {
		t.Errorf("after the next Route: %q, %v", who, err)
	}
}

// A file that cannot be written leaves the pooler held where it was.
func TestRouteThatCannotWrite(t *testing.T) {
	a, b := servers(t)
	pb := startBouncer(t, pooler.Ini{Databases: []pooler.Entry{db("app", a, nil)}}, nil)
	ctx := within(t, time.Minute)
	must(t, pb.local().Hold(ctx))
	local := pb.local()
	local.Config = pb.config + ".link"
	must(t, os.Symlink("/proc/self/pooler.ini", local.Config))
	if _, err := local.State(ctx); err == nil {
		t.Error("State without a file")
	}
	must(t, os.Remove(local.Config))
	must(t, os.Mkdir(local.Config, 0o755))
	var typed *pooler.Error
	if err := local.Route(ctx, target("m", b)); !errors.As(err, &typed) || typed.Op != "route" || typed.Pooler != local.Config {
		t.Errorf("Route: %v", err)
	}
	st, err := pb.local().State(ctx)
	must(t, err)
	if !st.Held || !st.Target.SameHosts(target("", a)) {
		t.Errorf("%+v", st)
	}
}

func setting(t *testing.T, pb *bouncer, key string) string {
	t.Helper()
	type row struct {
		Key   string `show:"key"`
		Value string `show:"value"`
	}
	ctx := within(t, 30*time.Second)
	c, err := pooler.Open(ctx, pb.console())
	must(t, err)
	defer c.Close()
	rows, err := pooler.Show[row](ctx, c, "CONFIG")
	must(t, err)
	for _, r := range rows {
		if r.Key == key {
			return r.Value
		}
	}
	t.Fatalf("no setting %s", key)
	return ""
}

func TestRestartKeepsTargetAndMark(t *testing.T) {
	a, b := servers(t)
	pb := startBouncer(t, pooler.Ini{Databases: []pooler.Entry{db("app", a, nil)}}, nil)
	ctx := within(t, time.Minute)
	was := mode(t, pb.config)
	must(t, pb.local().Route(ctx, target("7312:4:99", b)))
	pb.restart()
	st, err := pb.local().State(ctx)
	must(t, err)
	want := target("7312:4:99", b)
	if !st.Target.SameHosts(want) || st.Target.Mark != want.Mark || st.File.Mark != want.Mark {
		t.Errorf("after a restart: %+v", st)
	}
	if mode(t, pb.config) != was {
		t.Errorf("the mode became %v, was %v", mode(t, pb.config), was)
	}
}

func TestPerDatabase(t *testing.T) {
	noGoroutines(t)
	a, b := servers(t)
	pb := startBouncer(t, pooler.Ini{Databases: []pooler.Entry{db("app", a, nil), db("other", a, nil)}}, nil)
	local := pb.local()
	local.Databases = []string{"app"}
	ctx := within(t, time.Minute)
	moved, stays := pb.client("app"), pb.client("other")
	_, err := ask(stays, "BEGIN")
	must(t, err)
	_, err = ask(moved, "SELECT 1")
	must(t, err)
	must(t, local.Hold(ctx))
	if _, err := ask(stays, "SELECT 1"); err != nil {
		t.Fatalf("the other database: %v", err)
	}
	st, err := local.State(ctx)
	must(t, err)
	if !st.Held || !st.Drained || st.Clients != 1 {
		t.Errorf("held: %+v", st)
	}
	must(t, local.Route(ctx, target("m", b)))
	if who, err := ask(moved, "SELECT name FROM who"); err != nil || who != "b" {
		t.Errorf("the moved database: %q, %v", who, err)
	}
	if who, err := ask(stays, "SELECT name FROM who"); err != nil || who != "a" {
		t.Errorf("the other database: %q, %v", who, err)
	}
	st, err = local.State(ctx)
	must(t, err)
	if st.Held || st.Target.Mark != "m" || !st.Target.SameHosts(target("", b)) {
		t.Errorf("routed: %+v", st)
	}
	// The second one has a target and a mark of its own in the same file.
	second := pb.local()
	second.Databases = []string{"other"}
	must(t, second.Route(ctx, target("n", a)))
	st, err = local.State(ctx)
	must(t, err)
	if st.Target.Mark != "m" {
		t.Errorf("the other's Route took the mark: %+v", st)
	}
	if _, err := ask(stays, "COMMIT"); err != nil {
		t.Errorf("the other's transaction: %v", err)
	}
}

func TestPerDatabaseHoldThatNeverDrains(t *testing.T) {
	noGoroutines(t)
	a, b := servers(t)
	pb := startBouncer(t, pooler.Ini{Databases: []pooler.Entry{db("app", a, nil), db("other", a, nil)}}, nil)
	local := pb.local()
	local.Databases = []string{"app", "other"}
	stuck := pb.client("app")
	_, err := ask(stuck, "BEGIN")
	must(t, err)
	if err := giveUp(t, local); !errors.Is(err, context.Canceled) {
		t.Fatalf("Hold: %v", err)
	}
	ctx := within(t, time.Minute)
	st, err := local.State(ctx)
	must(t, err)
	if !st.Held || st.Drained {
		t.Errorf("held: %+v", st)
	}
	must(t, local.Route(ctx, target("m", b)))
	if who, err := ask(pb.client("other"), "SELECT name FROM who"); err != nil || who != "b" {
		t.Errorf("after Route: %q, %v", who, err)
	}
}

func TestWildcard(t *testing.T) {
	a, b := servers(t)
	pb := startBouncer(t, pooler.Ini{Databases: []pooler.Entry{db("*", a, nil)}}, nil)
	local := pb.local()
	ctx := within(t, time.Minute)
	st, err := local.State(ctx)
	must(t, err)
	if !st.Target.SameHosts(target("", a)) || st.Reason != "" {
		t.Errorf("before any client: %+v", st)
	}
	c := pb.client("app")
	_, err = ask(c, "SELECT 1")
	must(t, err)
	must(t, local.Hold(ctx))
	must(t, local.Route(ctx, target("m", b)))
	if who, err := ask(c, "SELECT name FROM who"); err != nil || who != "b" {
		t.Errorf("after Route: %q, %v", who, err)
	}
}

func TestReadServiceHasSeveralHosts(t *testing.T) {
	a, b := servers(t)
	pb := startBouncer(t, pooler.Ini{Databases: []pooler.Entry{db("app", a, nil)}}, nil)
	ctx := within(t, time.Minute)
	must(t, pb.local().Route(ctx, target("m", a, b)))
	seen := map[string]bool{}
	for range 4 {
		c := pb.client("app")
		_, err := ask(c, "BEGIN")
		must(t, err)
		who, err := ask(c, "SELECT name FROM who")
		must(t, err)
		seen[who] = true
	}
	st, err := pb.local().State(ctx)
	must(t, err)
	if len(seen) != 2 || !st.Target.SameHosts(target("", b, a)) || st.Target.Mark != "m" || st.Servers[a]+st.Servers[b] != 4 {
		t.Errorf("seen %v, %+v", seen, st)
	}
}

func TestReloadThatIsNotApplied(t *testing.T) {
	a, b := servers(t)
	pb := startBouncer(t, pooler.Ini{Databases: []pooler.Entry{db("app", a, nil)}}, nil)
	ctx := within(t, time.Minute)
	text, err := os.ReadFile(pb.config)
	must(t, err)
	must(t, os.WriteFile(pb.config, []byte(strings.Replace(string(text), "\n[databases]", "\nno_such_setting = 1\n[databases]", 1)), 0o600))
	must(t, pb.local().Hold(ctx))
	err = pb.local().Route(ctx, target("m", b))
	if !errors.Is(err, pooler.ErrNotApplied) {
		refused, ok := errors.AsType[*pooler.CommandError](err) // 1.25 and later say so
		if !ok || refused.Command != "RELOAD" {
			t.Fatalf("Route with a file that does not load: %v", err)
		}
	}
	st, err := pb.local().State(ctx)
	must(t, err)
	if !st.Held || !st.Target.SameHosts(target("", a)) || st.Target.Mark != "" || st.File.Mark != "m" {
		t.Errorf("after the failed Route: %+v, want held on the old target", st)
	}
	must(t, os.WriteFile(pb.config, text, 0o600))
	must(t, pb.local().Route(ctx, target("m", b)))
}

func TestRouteWithAnEndedContextWritesNothing(t *testing.T) {
	a, b := servers(t)
	pb := startBouncer(t, pooler.Ini{Databases: []pooler.Entry{db("app", a, nil)}}, nil)
	before, err := os.ReadFile(pb.config)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := pb.local().Route(ctx, target("m", b)); !errors.Is(err, context.Canceled) {
		t.Errorf("Route: %v", err)
	}
	after, err := os.ReadFile(pb.config)
	must(t, err)
	if string(after) != string(before) {
		t.Error("the file changed")
	}
}

func TestLocalSaysWhatIsWrong(t *testing.T) {
	connect := func(context.Context) (*pgconn.PgConn, error) { return nil, errors.New("no console here") }
	for _, c := range []struct {
		local *pooler.Local
		want  string
	}{
		{&pooler.Local{}, "Local.Config"},
		{&pooler.Local{Config: "/x/pgbouncer.ini"}, "Local.Connect"},
		{&pooler.Local{Config: "/x/pgbouncer.ini", Connect: connect, Databases: []string{"*"}}, "Local.Databases[0]"},
		{&pooler.Local{Config: "/x/pgbouncer.ini", Connect: connect}, "no console here"},
	} {
		_, err := c.local.State(context.Background())
		var typed *pooler.Error
		if !errors.As(err, &typed) || typed.Op != "state" || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want *Error with %q", c.local.Databases, err, c.want)
		}
	}
}

func TestKeptConsole(t *testing.T) {
	a, _ := servers(t)
	pb := startBouncer(t, pooler.Ini{Databases: []pooler.Entry{db("app", a, nil)}}, nil)
	local := pb.local()
	connect, opened := local.Connect, 0
	local.Connect = func(ctx context.Context) (*pgconn.PgConn, error) { opened++; return connect(ctx) }
	local.Keep = true
	ctx := t.Context()
	for range 3 {
		_, err := local.State(ctx)
		must(t, err)
		must(t, local.HoldNow(ctx))
		must(t, local.Route(ctx, target("m", a)))
	}
	if opened > 4 { // a hold that is slow to answer needs a second one
		t.Errorf("9 calls opened %d console connections, want one that is kept", opened)
	}
	opened = 0
	must(t, local.Close())
	for range 2 {
		_, err := local.State(ctx)
		must(t, err)
	}
	if opened != 1 {
		t.Errorf("after Close %d connections were opened, want one that is kept again", opened)
	}
	must(t, local.HoldNow(ctx))
	if st, err := local.State(ctx); err != nil || !st.Held {
		t.Errorf("after Close: held %t, %v", st.Held, err)
	}
	must(t, local.Close())
}

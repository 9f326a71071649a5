package pooler_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconvoy/pgconvoy/pooler"
)

// TestTwoClustersInOnePooler: two agents move the databases of their own cluster back and forth, both at a time, in one
// PgBouncer and one file. Neither loses what the other has written, and their clients see one pause after another and no
// error. A third database, which nobody moves, is never disturbed.
func TestTwoClustersInOnePooler(t *testing.T) {
	noGoroutines(t)
	a, b := servers(t)
	elsewhere := pooler.Params{"dbname": "app"}
	pb := startBouncer(t, pooler.Ini{Databases: []pooler.Entry{
		db("app", a, nil), db("app2", a, elsewhere), db("other", b, nil), db("third", a, elsewhere),
	}}, nil)
	first, second := pb.local(), pb.local()
	first.Databases, second.Databases = []string{"app", "app2"}, []string{"other"}
	ctx := within(t, 2*time.Minute)
	open := pb.client("third")
	_, err := ask(open, "BEGIN")
	must(t, err)

	moving, done := context.WithCancel(ctx)
	defer done()
	var clients, agents sync.WaitGroup
	asked := map[string]int{}
	var mu sync.Mutex
	for _, name := range []string{"app", "app2", "other", "third"} {
		c := pb.client(name)
		clients.Go(func() {
			for moving.Err() == nil {
				if _, err := ask(c, "SELECT name FROM who"); err != nil {
					t.Errorf("a client of %s: %v", name, err)
					return
				}
				mu.Lock()
				asked[name]++
				mu.Unlock()
			}
		})
	}
	const rounds = 20
	move := func(l *pooler.Local, here, there netip.AddrPort) {
		for i := range rounds {
			to := target(fmt.Sprint("epoch ", i), there)
			if i%2 == 1 {
				to = target(fmt.Sprint("epoch ", i), here)
			}
			err := l.Hold(ctx)
			if err == nil {
				err = l.Route(ctx, to)
			}
			if err != nil {
				t.Error(err)
				return
			}
			st, err := l.State(ctx)
			if err != nil || st.Held || !st.Target.SameHosts(to) || st.Target.Mark != to.Mark || !st.File.SameHosts(to) || st.File.Mark != to.Mark {
				t.Errorf("%v after the route to %v: %+v, %v", l.Databases, to, st, err)
			}
		}
	}
	agents.Go(func() { move(first, a, b) })
	agents.Go(func() { move(second, b, a) })
	agents.Wait()
	done()
	clients.Wait()
	t.Logf("%d moves of each; answers by database: %v", rounds, asked)
	if _, err := ask(open, "COMMIT"); err != nil {
		t.Errorf("a transaction of the third database: %v", err)
	}
	if got := setting(t, pb, "default_pool_size"); got != "20" {
		t.Errorf("default_pool_size became %s, which is everybody's", got)
	}
	for name, want := range map[string]string{"app": "a", "app2": "a", "other": "b", "third": "a"} {
		if who, err := ask(pb.client(name), "SELECT name FROM who"); err != nil || who != want {
			t.Errorf("at the end %s is on %q, %v, want %q", name, who, err, want)
		}
	}
}

// TestDatabasesOfOneClusterMoveTogether: the databases of one cluster have one hold, one target and one mark.
func TestDatabasesOfOneClusterMoveTogether(t *testing.T) {
	a, b := servers(t)
	pb := startBouncer(t, pooler.Ini{Databases: []pooler.Entry{
		db("app", a, nil), db("app2", a, pooler.Params{"dbname": "app"}), db("stays", a, pooler.Params{"dbname": "app"}),
	}}, nil)
	local := pb.local()
	local.Databases = []string{"app", "app2"}
	ctx := within(t, time.Minute)
	must(t, local.Hold(ctx))
	must(t, local.Route(ctx, target("7312:4:99", b)))
	c, err := pooler.Open(ctx, pb.console())
	must(t, err)
	defer c.Close()
	rows, err := pooler.Show[pooler.DatabaseRow](ctx, c, "DATABASES")
	must(t, err)
	want := map[string]string{"app": b.Addr().String(), "app2": b.Addr().String(), "stays": a.Addr().String()}
	for _, r := range rows {
		if host, ours := want[r.Name]; ours && (r.Host != host || r.Paused) {
			t.Errorf("%s: host %s, paused %t, want %s", r.Name, r.Host, r.Paused, host)
		}
		delete(want, r.Name)
	}
	if len(want) > 0 {
		t.Errorf("not shown: %v", want)
	}
	// A restart brings all of it back.
	pb.restart()
	if st, err := local.State(ctx); err != nil || st.Target.Mark != "7312:4:99" || !st.Target.SameHosts(target("", b)) {
		t.Errorf("after a restart: %+v, %v", st, err)
	}
}

// TestHoldThatWasReleasedUnseen: somebody resumes the pooler between the PAUSE and the first look at it. PgBouncer never
// answers that PAUSE, but the Hold ends.
func TestHoldThatWasReleasedUnseen(t *testing.T) {
	noGoroutines(t)
	a, _ := servers(t)
	for name, databases := range map[string][]string{"global": nil, "per database": {"app"}} {
		t.Run(name, func(t *testing.T) {
			pb := startBouncer(t, pooler.Ini{Databases: []pooler.Entry{db("app", a, nil)}}, nil)
			busy := pb.client("app")
			_, err := ask(busy, "BEGIN")
			must(t, err)
			ctx := within(t, time.Minute)
			somebody, err := pooler.Open(ctx, pb.console())
			must(t, err)
			defer somebody.Close()
			local := pb.local()
			local.Databases = databases
			local.Timeout = 2 * time.Second
			connect, opened := local.Connect, 0
			local.Connect = func(ctx context.Context) (*pgconn.PgConn, error) {
				if opened++; opened == 2 { // the first carries the PAUSE, this one the look
					for { // until the PAUSE is in effect
						err := somebody.Exec(ctx, "RESUME", databases...)
						if err == nil {
							break
						}
						if refused := (*pooler.CommandError)(nil); !errors.As(err, &refused) {
							return nil, err
						}
					}
				}
				return connect(ctx)
			}
			if err := local.HoldNow(ctx); !errors.Is(err, pooler.ErrReleased) {
				t.Errorf("Hold: %v, want ErrReleased", err)
			}
			if _, err := ask(busy, "COMMIT"); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestUpdatesOfOneFile is TestTwoClustersInOnePooler's race alone, many times: what each writes stays.
func TestUpdatesOfOneFile(t *testing.T) {
	a, b := servers(t)
	pb := startBouncer(t, pooler.Ini{Databases: []pooler.Entry{db("app", a, nil), db("other", b, nil)}}, nil)
	ctx := within(t, 2*time.Minute)
	var agents sync.WaitGroup
	for _, name := range []string{"app", "other"} {
		local := pb.local()
		local.Databases, local.NoSync, local.Keep = []string{name}, true, true
		defer local.Close()
		agents.Go(func() {
			for i := range 100 {
				to := target(fmt.Sprint(name, " ", i), []netip.AddrPort{a, b}[i%2])
				if err := local.Route(ctx, to); err != nil {
					t.Error(err)
					return
				}
				file, err := os.ReadFile(pb.config)
				if err != nil {
					t.Error(err)
					return
				}
				if got, known, err := pooler.ReadTarget(file, local.Databases); err != nil || !known || got.Mark != to.Mark || !got.SameHosts(to) {
					t.Errorf("%s: the file has %v, %v after %v", name, got, err, to)
				}
			}
		})
	}
	agents.Wait()
}

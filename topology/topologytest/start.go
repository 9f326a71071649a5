package topologytest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/proc"
	"github.com/pgconvoy/pgconvoy/topology"
)

// Options say what stack a test wants. The zero value is a whole one.
type Options struct {
	Spec    topology.Spec // zero: three nodes with synchronous replication, three write and two read poolers
	Backend Backend       // nil: Processes{}
	DCS     string        // the store's kind: "embedded" (etcd), "consul" or "zookeeper"; empty: "embedded"
	Members int           // servers of the store; 0: one. Faults of the quorum need three.
	// Disk is the size in bytes of a file system for each node's data, for FillDisk; it needs root. 0: ordinary folders.
	Disk int64
	// Direct leaves the proxies and the scripts that can hang out, for measurements: then no link can be broken.
	Direct bool
	// Limit bounds the start, and each wait of a method; 0: three minutes.
	Limit time.Duration
}

// required is the environment variable that forbids skipping.
const required = "PGCONVOY_REQUIRE"

// Start runs a stack for a test and returns when all of it is routed. It is stopped when the test ends; a test that
// fails shows the ends of its logs, and says where they are. Where the programs are missing the test is skipped.
func Start(t testing.TB, o Options) *Stack {
	t.Helper()
	requirePrograms(t, o)
	u, err := launch(t.Context(), o, t.Name())
	if u != nil {
		t.Cleanup(func() { u.end(t) })
	}
	if err != nil {
		t.Fatalf("%v", err)
	}
	return u.handle(t)
}

func requirePrograms(t testing.TB, o Options) {
	t.Helper()
	if kinds := []string{"embedded", "consul", "zookeeper"}; o.DCS != "" && !slices.Contains(kinds, o.DCS) {
		t.Fatalf("topologytest: Options.DCS %q is none of %s", o.DCS, strings.Join(kinds, ", "))
	}
	err := o.backend().Check(t.Context(), o.DCS)
	if err == nil && o.Disk > 0 && os.Geteuid() != 0 {
		err = errors.New("Options.Disk mounts a file system for each node, which takes root")
	}
	if err == nil {
		return
	}
	const said = "topologytest: a stack cannot run here (`%s` in a clone of github.com/pgconvoy/pgconvoy installs what it needs): %v"
	setup := "make setup"
	if o.DCS == "consul" || o.DCS == "zookeeper" {
		setup = "scripts/setup --stores"
	}
	if os.Getenv(required) == "1" {
		t.Fatalf(said, setup, err)
	}
	t.Skipf(said, setup, err)
}

func (o Options) backend() Backend {
	if o.Backend == nil {
		return Processes{}
	}
	return o.Backend
}

func (o Options) limit() time.Duration { return cmp.Or(o.Limit, 3*time.Minute) }

// running is a stack under way, for one test or for several, one after the other.
type running struct {
	r     Running // what the backend runs
	o     Options
	links *links // nil: none
	logs  string
	file  *os.File // of what runs in this process

	ctx  context.Context // of the stack: it ends when the stack fails
	stop context.CancelFunc
	up   chan struct{} // closed when r and ctx are there
	done chan struct{} // closed when the stack is gone
	err  error         // of the stack, after done

	mu     sync.Mutex
	faults []*fault // not undone yet, the oldest first
	marks  map[marker]bool
}

// launch starts a stack. With an error the result may still be there, to be ended.
func launch(ctx context.Context, o Options, name string) (*running, error) {
	logs, err := os.MkdirTemp("", "pgconvoy-"+strings.Trim(strings.Map(plain, name), "-")+"-")
	if err != nil {
		return nil, fmt.Errorf("topologytest: %w", err)
	}
	u := &running{o: o, logs: logs, up: make(chan struct{}), done: make(chan struct{}), marks: map[marker]bool{}}
	if u.file, err = os.Create(filepath.Join(logs, "test.log")); err != nil {
		return nil, fmt.Errorf("topologytest: %w", errors.Join(err, os.RemoveAll(logs)))
	}
	c := Config{
		Spec: o.Spec, DCS: o.DCS, Members: o.Members, Disk: o.Disk, Logs: logs,
		Logger: slog.New(slog.NewTextHandler(u.file, nil)),
	}
	if !o.Direct {
		u.links, c.Node = newLinks(), nodeFaults
		c.Via = func(from, to string, addr netip.AddrPort) (netip.AddrPort, error) { return u.links.via(from, to, addr) }
	}
	life, stop := context.WithCancel(context.WithoutCancel(ctx)) // a test's own context ends before its clean-up
	u.stop = stop
	go func() {
		defer close(u.done)
		u.err = o.backend().Run(life, c, func(ctx context.Context, r Running) error {
			u.r, u.ctx = r, ctx
			close(u.up)
			<-ctx.Done()
			return nil
		})
	}()
	ctx, cancel := context.WithTimeout(ctx, o.limit())
	defer cancel()
	select {
	case <-u.up:
		return u, nil
	case <-u.done:
		return u, cmp.Or(u.err, errEnded)
	case <-ctx.Done():
		return u, fmt.Errorf("topologytest: the stack did not start within %v: %w", o.limit(), context.Cause(ctx))
	}
}

// plain keeps what a file's name can have anywhere.
func plain(r rune) rune {
	if r < 128 && (r == '-' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z') {
		return r
	}
	return '-'
}

// end stops the stack and waits until nothing of it is left.
func (u *running) end(t testing.TB) {
	t.Helper()
	failed := false // by itself
	select {
	case <-u.up:
		failed = u.ctx.Err() != nil
	default:
	}
	u.stop()
	<-u.done
	if err := u.err; err != nil && !t.Failed() || failed {
		t.Errorf("topologytest: the stack failed: %v", err)
	} else if err != nil {
		t.Logf("topologytest: the stack: %v", err)
	}
	if u.links != nil {
		if err := u.links.close(); err != nil {
			t.Errorf("topologytest: %v", err)
		}
	}
	_ = u.file.Close() // a log
	u.report(t)
}

// report shows the logs of a test that failed, and removes those of one that did not.
func (u *running) report(t testing.TB) {
	t.Helper()
	if !t.Failed() {
		if err := os.RemoveAll(u.logs); err != nil {
			t.Errorf("topologytest: %v", err)
		}
		return
	}
	files, err := filepath.Glob(filepath.Join(u.logs, "*.log"))
	if err != nil {
		t.Logf("topologytest: %v", err)
	}
	for _, f := range files {
		if end := ends(f); end != "" {
			t.Logf("%s ends with:\n%s", filepath.Base(f), end)
		}
	}
	t.Logf("all logs of the stack are in %s", u.logs)
}

// ends is the end of a log, without the ends of long lines.
func ends(log string) string {
	const most = 240 // the whole line is in the file
	lines := strings.Split(proc.Tail(log, 12), "\n")
	for i, line := range lines {
		if len(line) > most {
			lines[i] = line[:most] + " ..."
		}
	}
	return strings.Join(lines, "\n")
}

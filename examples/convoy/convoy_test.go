package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/memory"
	"github.com/pgconvoy/pgconvoy/envoyconf/xds"
	"github.com/pgconvoy/pgconvoy/topology"
	"github.com/pgconvoy/pgconvoy/topology/ledger"
	"github.com/pgconvoy/pgconvoy/topology/local"
)

func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		{},
		{"nonsense"},
		{"up", "-nonsense"},
		{"up", "surplus"},
		{"up", "-dcs", "paper"},
		{"up", "-nodes", "-1"},
		{"up", "-dcs", "etcd"},
		{"up", "-dcs-endpoints", "127.0.0.1:2379"},
		{"view", "-dcs", "embedded", "-dcs-endpoints", "127.0.0.1:2379", "-path", "/service/demo"},
		{"view", "-dcs", "consul", "-path", "/service/demo"},
		{"view", "-dcs", "zookeeper", "-dcs-endpoints", "127.0.0.1:2181"},
		{"view", "-dcs", "etcd"},
		{"view", "-dcs", "consul", "-dcs-endpoints", "127.0.0.1", "-path", "/service/demo"},
		{"view", "-dcs", "consul", "-dcs-endpoints", "https://127.0.0.1:8501", "-path", "/service/demo"},
		{"view", "-path", "/service/demo"},
		{"switchover", "-budget", "soon"},
		{"agent"},
		{"agent", "-name", "x", "-listen", "somewhere", "-config", "p.ini"},
		{"agent", "-name", "x", "-config", "p.ini"},
		{"agent", "-name", "x", "-listen", "127.0.0.1:6432"},
		{"agent", "-name", "x", "-listen", "127.0.0.1:6432", "-config", "p.ini", "-service", "both"},
		{"agent", "-name", "x", "-listen", "127.0.0.1:6432", "-config", "p.ini", "-log", "xml"},
		{"agent", "-name", "x", "-listen", "127.0.0.1:6432", "-config", "p.ini"}, // no console
		{"serve", "-listen", "127.0.0.1:18000"},
		{"serve", "-name", "x"},
	} {
		if code := run(t.Context(), args); code != 2 {
			t.Errorf("convoy %s: exit code %d, want 2", strings.Join(args, " "), code)
		}
	}
	if code := run(t.Context(), []string{"up", "-h"}); code != 0 {
		t.Errorf("convoy up -h: exit code %d, want 0", code)
	}
	if code := run(t.Context(), []string{"view", "-dir", t.TempDir()}); code != 1 {
		t.Errorf("convoy view without a stack: exit code %d, want 1", code)
	}
}

func TestSpecFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "spec.yaml")
	text := "path: /service/shop\nnodes: [{name: a}, {name: b}]\ntiming: {loop_wait: 5}\nenvoy: {write: 127.0.0.1:5432}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	spec, err := readSpec(file)
	if err != nil || spec.Path != "/service/shop" || len(spec.Nodes) != 2 || spec.Timing.LoopWait != 5 || spec.Envoy.Write.Port() != 5432 {
		t.Errorf("%+v %v", spec, err)
	}
	if err := os.WriteFile(file, []byte("nodez: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readSpec(file); err == nil || !strings.Contains(err.Error(), "nodez") {
		t.Errorf("an unknown field: %v, want an error that names it", err)
	}
}

// What cannot be parsed may hold a password.
func TestNoDSNIsEchoed(t *testing.T) {
	const bad = "postgres://admin:hunter2@[nowhere/pgbouncer?hunter2"
	t.Setenv(consoleDSN, bad)
	t.Setenv(monitorDSN, bad)
	var said bytes.Buffer
	f := newFlags("agent", "")
	f.SetOutput(&said)
	_, err := consoleOf(f)
	if !errors.Is(err, errUsage) || !strings.Contains(said.String(), "$"+consoleDSN+" cannot be parsed") || strings.Contains(said.String(), "hunter2") {
		t.Errorf("%v, said %q", err, said.String())
	}
	w := where{dcs: "consul", endpoints: "127.0.0.1:1", path: "/service/demo"}
	if _, _, err := w.find(f); err == nil || !strings.Contains(err.Error(), "$"+monitorDSN) || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("error %v", err)
	}
}

// A store that does not answer is the same failure for events as for a view.
func TestEventsOfASilentStore(t *testing.T) {
	args := []string{"view", "-events", "-dcs", "consul", "-dcs-endpoints", "127.0.0.1:1", "-path", "/service/demo"}
	if code := run(t.Context(), args); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	store := memory.New()
	store.SetDown(errors.New("no quorum"))
	err := events(t.Context(), &topology.Observer{Path: "/service/demo", Store: store}, false, false)
	if err == nil || !strings.Contains(err.Error(), "the store did not answer: ") || !strings.Contains(err.Error(), "no quorum") {
		t.Errorf("error %v", err)
	}
}

func TestWatchShowsNews(t *testing.T) {
	at := time.Unix(1e9, 0)
	v := topology.View{At: at, Confirmed: at, Poolers: []topology.PoolerView{{Name: "pgb-1", Seen: topology.Seen{At: at}}}}
	var s shown
	step := func(want bool, after time.Duration, change func()) {
		t.Helper()
		at = at.Add(after)
		v.At, v.Leadership.At, v.Leadership.Probe.At, v.Poolers[0].Seen.At = at, at, at, at
		change()
		if got := s.news(v); got != want {
			t.Errorf("%s: %v, want %v", at, got, want)
		}
	}
	nothing := func() {}
	step(true, 0, nothing)
	step(false, time.Minute, func() { v.Confirmed = at })
	step(true, 0, func() { v.Poolers[0].State = topology.Held })
	step(true, time.Millisecond, func() { v.Stale = "no quorum" })
	step(false, 500*time.Millisecond, nothing)
	step(true, 500*time.Millisecond, nothing)
	step(true, time.Millisecond, func() { v.Stale = "" })
	step(false, time.Minute, nothing)
}

// The end of serving is told once.
func TestServeEndsWithItsListener(t *testing.T) {
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	plane := &topology.ControlPlane{
		Cluster: topology.Cluster{Path: "/service/demo", Store: memory.New()}, Name: "cp-1", Router: xds.New(xds.Config{}),
	}
	err = serveAt(t.Context(), listener, grpc.NewServer(), plane)
	if err == nil || strings.Count(err.Error(), "serving at") != 1 || strings.Count(err.Error(), "closed network connection") != 1 {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if listener, err = net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		t.Fatal(err)
	}
	if err := serveAt(ctx, listener, grpc.NewServer(), plane); err != nil {
		t.Errorf("the end that was asked for: %v", err)
	}
}

// build builds the program, where a stack on any of the stores can run.
func build(t *testing.T, stores ...string) (convoy string) {
	t.Helper()
	if _, _, err := (local.Binaries{}).Find(t.Context(), stores...); err != nil {
		if os.Getenv("PGCONVOY_REQUIRE") == "1" {
			t.Fatal(err)
		}
		t.Skipf("the programs of a stack are missing (scripts/setup --stores installs them): %v", err)
	}
	convoy = filepath.Join(t.TempDir(), "convoy")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", convoy, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return convoy
}

// start runs convoy up until the test ends, and returns what it tells of the stack.
func start(t *testing.T, convoy string, args ...string) (info local.Info) {
	t.Helper()
	tmp := t.TempDir()
	for d := tmp; d != os.TempDir() && d != "/"; d = filepath.Dir(d) { // the databases' user must get through
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("TMPDIR", tmp)
	ready := filepath.Join(tmp, "ready.json")
	up := exec.Command(convoy, append([]string{"up", "-ready-file", ready}, args...)...)
	log, err := os.Create(filepath.Join(tmp, "up.log"))
	if err != nil {
		t.Fatal(err)
	}
	up.Stdout, up.Stderr = log, log
	if err := up.Start(); err != nil {
		t.Fatal(err)
	}
	gone, ended := make(chan struct{}), error(nil) // the latter is for who has seen the former closed
	go func() { ended = up.Wait(); close(gone) }()
	t.Cleanup(func() {
		if err := up.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
		<-gone
		if ended != nil || t.Failed() {
			said, _ := os.ReadFile(log.Name())
			t.Errorf("convoy up: %v\n%s", ended, said)
		}
		if _, err := os.Stat(ready); err == nil {
			t.Error("the ready file tells of a stack that is gone")
		}
	})
	await(t, 4*time.Minute, "the ready file", func() bool { // a stack may take three to start
		select {
		case <-gone:
			t.Fatal("convoy up has ended before its stack was ready")
		default:
		}
		b, err := os.ReadFile(ready)
		return err == nil && json.Unmarshal(b, &info) == nil
	})
	if st, err := os.Stat(ready); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the ready file is readable by others: %v %v", st, err)
	}
	return info
}

// TestStores: a stack on a store that convoy up starts tells where that is; the other commands find it there too.
func TestStores(t *testing.T) {
	convoy := build(t, "consul", "zookeeper")
	for _, kind := range []string{"consul", "zookeeper"} {
		t.Run(kind, func(t *testing.T) {
			info := start(t, convoy, "-nodes", "2", "-poolers", "1", "-dcs", kind)
			if info.DCS.Kind != kind || len(info.DCS.Endpoints) != 1 || info.PIDs[kind+"-1"] == 0 {
				t.Errorf("the ready file says %v, %v", info.DCS, info.PIDs)
			}
			if out, err := exec.CommandContext(t.Context(), convoy, "switchover").CombinedOutput(); err != nil {
				t.Errorf("convoy switchover: %v: %s", err, out)
			}
			v := look(t, convoy, "-dcs", kind, "-dcs-endpoints", info.DCS.Endpoints[0], "-path", info.Path)
			if len(v.Members) != 2 || v.Confirmed.IsZero() { // who leads is not proven: nothing says how to ask the databases
				t.Errorf("the view over the store alone: %v", v)
			}
		})
	}
}

// TestCoordinatorKilled: a stack run by convoy up, a switchover by another process that is killed with -9 while the
// poolers hold. Every pooler serves again within the hold's limit, by itself, and nothing is lost.
func TestCoordinatorKilled(t *testing.T) {
	convoy := build(t)
	info := start(t, convoy)
	l, err := ledger.Start(t.Context(), info.WriteDSN, ledger.Load{})
	if err != nil {
		t.Fatal(err)
	}
	c, closed, err := open(info.DCS, info.Path, info.SuperuserDSN, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer closed()
	wctx, stopWatch := context.WithCancel(t.Context())
	views, watchEnd := dcs.Latest(observer(c).Watch(wctx))
	defer func() {
		stopWatch()
		_ = watchEnd() // the end of its context
	}()
	const limit = 10 * time.Second
	killed := false
	for range 20 { // the moment between the end of the old primary and the proof of the new one is short: until it is met
		sw := exec.CommandContext(t.Context(), convoy, "switchover", "-limit", limit.String())
		if err := sw.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() { _ = sw.Wait(); close(done) }()
		for ended := false; !ended && !killed; {
			select {
			case <-done:
				ended = true
			case v, open := <-views:
				if !open {
					t.Fatalf("the view has ended: %v", watchEnd())
				}
				if v.Operation != nil && v.Operation.Phase == "switch" && v.Leadership.Phase != "writable" {
					killed = sw.Process.Signal(syscall.SIGKILL) == nil
				}
			}
		}
		<-done
		if killed {
			break
		}
		await(t, time.Minute, "a whole stack", func() bool { return look(t, convoy).Routed() })
	}
	if !killed {
		t.Fatal("no switchover was met past its point of no return")
	}
	await(t, limit+20*time.Second, "every pooler to serve again", func() bool {
		v := look(t, convoy)
		return v.Routed() && v.Operation == nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := l.Stop(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%v", r)
	if r.Lost > 0 || r.Surplus > 0 {
		t.Errorf("%d lost, %d surplus, want none", r.Lost, r.Surplus)
	}
	if r.Failed > r.Writers {
		t.Errorf("%d transactions failed (%v), more than the %d in flight", r.Failed, r.BySQLState, r.Writers)
	}
}

func look(t *testing.T, convoy string, args ...string) (v topology.View) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), convoy, append([]string{"view", "-json"}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("convoy view: %v %s", err, errs.String())
	}
	if err := json.Unmarshal(out.Bytes(), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func await(t *testing.T, limit time.Duration, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit, errors.New("not within "+limit.String()))
	defer cancel()
	for !done() {
		select {
		case <-ctx.Done():
			t.Fatalf("waiting for %s: %v", what, context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

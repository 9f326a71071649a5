package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconvoy/pgconvoy/pooler"
	"github.com/pgconvoy/pgconvoy/topology"
	"github.com/pgconvoy/pgconvoy/topology/local"
)

// TestAgentAndServe: one more PgBouncer, with an agent and a control plane that are programs of their own, joins the
// fleet of a running stack.
func TestAgentAndServe(t *testing.T) {
	convoy := build(t)
	info := start(t, convoy, "-nodes", "2", "-poolers", "1")
	extra := startPgBouncer(t, info)
	args := []string{"agent", "-name", "extra", "-listen", extra.addr.String(), "-config", extra.config}
	agent := launch(t, convoy, args...)
	plane := launch(t, convoy, "serve", "-name", "cp-extra", "-listen", free(t).String(), "-log", "json")
	extraOf := func(v topology.View) (p topology.PoolerView) {
		for _, p = range v.Poolers {
			if p.Name == "extra" {
				return p
			}
		}
		return topology.PoolerView{}
	}
	routed := func() bool { p := extraOf(look(t, convoy)); return p.Live && p.State == topology.Routed }
	await(t, time.Minute, "the new pooler to be routed", routed)
	await(t, time.Minute, "the new control plane's record", func() bool {
		for _, cp := range look(t, convoy).ControlPlanes {
			if cp.Name == "cp-extra" && cp.Services["write"].Version != "" {
				return true
			}
		}
		return false
	})
	if !extra.serves(t, info) {
		t.Error("the new pooler leads to a replica")
	}

	// It follows.
	before := extraOf(look(t, convoy)).Target
	if out, err := exec.CommandContext(t.Context(), convoy, "switchover").CombinedOutput(); err != nil {
		t.Fatalf("convoy switchover: %v: %s", err, out)
	}
	await(t, time.Minute, "the new pooler to follow", func() bool {
		p := extraOf(look(t, convoy))
		return p.State == topology.Routed && fmt.Sprint(p.Target) != fmt.Sprint(before)
	})
	if !extra.serves(t, info) {
		t.Error("after the switchover the new pooler leads to the old primary")
	}

	// Killed while it holds: whoever starts it again lets the clients go.
	agent.end(t, syscall.SIGKILL)
	if err := extra.local.Hold(t.Context()); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	waiting := make(chan bool, 1)
	go func() { waiting <- extra.serves(t, info) }()
	agent = launch(t, convoy, args...)
	if !<-waiting {
		t.Error("the client that waited was led to a replica")
	}
	t.Logf("an orphaned PAUSE ended %v after the new start", time.Since(began).Round(time.Millisecond))
	await(t, time.Minute, "the agent to be routed again", routed)

	// Ended: PgBouncer serves on.
	t.Logf("memory of the agent: %s", agent.memory(t))
	t.Logf("memory of the control plane: %s", plane.memory(t))
	if err := agent.end(t, syscall.SIGTERM); err != nil {
		t.Errorf("the agent ended with %v", err)
	}
	if err := plane.end(t, syscall.SIGINT); err != nil {
		t.Errorf("the control plane ended with %v", err)
	}
	if !extra.serves(t, info) {
		t.Error("without its agent the pooler does not serve the primary")
	}
	out, err := exec.CommandContext(t.Context(), convoy, "view", "-events").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "extra: ") {
		t.Errorf("convoy view -events: %v: %s", err, out)
	}
}

// pgbouncer is one that no stack knows of.
type pgbouncer struct {
	addr   netip.AddrPort
	config string
	local  *pooler.Local
}

// startPgBouncer starts one with the settings of the stack's own, pointed at nothing, until the test ends, and makes its
// console known to the agents to come.
func startPgBouncer(t *testing.T, info local.Info) pgbouncer {
	t.Helper()
	b, _, err := (local.Binaries{}).Find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(info.Dir, "pgb-1", "pgbouncer.ini"))
	if err != nil {
		t.Fatal(err)
	}
	ini, err := pooler.ParseIni(text)
	if err != nil {
		t.Fatal(err)
	}
	p := pgbouncer{addr: free(t)}
	ini.Settings["listen_port"], ini.PeerID, ini.Peers = strconv.Itoa(int(p.addr.Port())), 0, nil
	ini.Databases[0].Params["host"], ini.Databases[0].Params["port"] = "127.0.0.1", "1"
	dir := filepath.Join(filepath.Dir(info.Dir), "extra")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	p.config = filepath.Join(dir, "pgbouncer.ini")
	if err := ini.WriteFile(p.config); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(b.PgBouncer, "-q", p.config)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Getuid() == 0 { // it refuses root
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		for _, path := range []string{dir, p.config} {
			if err := os.Chown(path, uid, gid); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	})
	console := p.dsn(t, info.AdminDSNs["pgb-1"])
	t.Setenv(consoleDSN, console)
	config, err := pgconn.ParseConfig(console)
	if err != nil {
		t.Fatal(err)
	}
	p.local = &pooler.Local{Config: p.config, Connect: pooler.ConnectWith(config)}
	await(t, time.Minute, "the console", func() bool { _, err := p.local.State(t.Context()); return err == nil })
	return p
}

// dsn is the same at the pooler's own address.
func (p pgbouncer) dsn(t *testing.T, dsn string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = p.addr.String()
	return u.String()
}

// serves asks through the pooler whether the server behind it takes writes.
func (p pgbouncer) serves(t *testing.T, info local.Info) (primary bool) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := pgx.Connect(ctx, p.dsn(t, info.WriteDSN))
	if err != nil {
		t.Error(err)
		return false
	}
	defer func() { _ = c.Close(context.WithoutCancel(ctx)) }()
	if err := c.QueryRow(ctx, "SELECT NOT pg_is_in_recovery()").Scan(&primary); err != nil {
		t.Error(err)
	}
	return primary
}

// free is an address that nobody listens at.
func free(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// program is one that runs until it is ended.
type program struct {
	cmd  *exec.Cmd
	said *bytes.Buffer // complete when it is gone
}

func launch(t *testing.T, convoy string, args ...string) *program {
	t.Helper()
	p := &program{exec.Command(convoy, args...), &bytes.Buffer{}}
	p.cmd.Stdout, p.cmd.Stderr = p.said, p.said
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			_ = p.end(t, syscall.SIGKILL)
		}
		if t.Failed() {
			t.Logf("convoy %s:\n%s", args[0], p.said)
		}
	})
	return p
}

// end signals the program and waits until it is gone.
func (p *program) end(t *testing.T, sig syscall.Signal) error {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	return p.cmd.Wait()
}

// memory is what the program has resident: in all, of its own, and of files that it shares with others.
func (p *program) memory(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Error(err)
	}
	var parts []string
	for line := range strings.Lines(string(b)) {
		if key, value, _ := strings.Cut(line, ":"); key == "VmRSS" || key == "RssAnon" || key == "RssFile" {
			parts = append(parts, key+" "+strings.TrimSpace(value))
		}
	}
	return strings.Join(parts, ", ")
}

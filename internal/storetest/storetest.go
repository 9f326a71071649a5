// Package storetest runs real servers of configuration stores for tests: etcd, Consul and ZooKeeper, one or several,
// each of which can be stopped, killed and started again, and proxies between them and a client.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/dcsserver"
	"github.com/pgconvoy/pgconvoy/internal/leak"
	"github.com/pgconvoy/pgconvoy/internal/porttest"
	"github.com/pgconvoy/pgconvoy/internal/proc"
)

// Within bounds every wait for servers: a majority that starts anew on a busy machine.
const Within = time.Minute

// Servers are the servers of one store. They end with the test that started them.
type Servers struct {
	t       testing.TB
	addrs   []netip.AddrPort
	servers []server
	leader  func(ctx context.Context, i int) (bool, error)
	answers func(ctx context.Context, i int) error
	expire  func(ctx context.Context, key string) error // nil: the servers have no such way
	forget  func(ctx context.Context) error             // nil: likewise
}

// server is one of them.
type server interface {
	down(ctx context.Context, kill bool) error // it is gone when this returns
	up(ctx context.Context) error              // it is about to serve when this returns
	name() string
	data() string // the folder of all that it keeps
}

// Len is their number.
func (s *Servers) Len() int { return len(s.servers) }

// Addrs are their addresses for clients, in order.
func (s *Servers) Addrs() []netip.AddrPort { return s.addrs }

// Kill ends one server as a crash does.
func (s *Servers) Kill(t testing.TB, i int) {
	t.Helper()
	s.do(t, i, "kill", func(ctx context.Context) error { return s.servers[i].down(ctx, true) })
}

// Stop ends one server in an orderly way.
func (s *Servers) Stop(t testing.TB, i int) {
	t.Helper()
	s.do(t, i, "stop", func(ctx context.Context) error { return s.servers[i].down(ctx, false) })
}

// Start starts one again, with its data. Await says when it serves.
func (s *Servers) Start(t testing.TB, i int) {
	t.Helper()
	s.do(t, i, "start", func(ctx context.Context) error { return s.servers[i].up(ctx) })
}

// Restart stops all servers, and starts them again with their data.
func (s *Servers) Restart(t testing.TB) {
	t.Helper()
	s.restart(t, func(int) error { return nil })
}

// restart calls between for each server while all are down.
func (s *Servers) restart(t testing.TB, between func(i int) error) {
	t.Helper()
	began := time.Now()
	each(s.Len(), func(i int) { s.Stop(t, i) })
	each(s.Len(), func(i int) {
		if err := between(i); err != nil {
			t.Errorf("server %s: %v", s.servers[i].name(), err)
		}
	})
	stopped := time.Since(began)
	each(s.Len(), func(i int) { s.Start(t, i) })
	s.Await(t)
	t.Logf("%d servers stopped in %v, serve again after %v", s.Len(), stopped.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
}

// LoseMajority kills as many servers as leave the others without a majority: the only one of one, two of three. What it
// returns starts them again and waits until they serve.
func (s *Servers) LoseMajority(t testing.TB) (heal func()) {
	t.Helper()
	n := (s.Len() + 1) / 2
	each(n, func(i int) { s.Kill(t, i) })
	return func() {
		t.Helper()
		each(n, func(i int) { s.Start(t, i) })
		s.Await(t)
	}
}

// KillLeader kills the server that leads. What it returns starts it again and waits until it serves.
func (s *Servers) KillLeader(t testing.TB) (heal func()) {
	t.Helper()
	i := s.Leader(t)
	s.Kill(t, i)
	return func() {
		t.Helper()
		s.Start(t, i)
		s.Await(t)
	}
}

// Leader is the server that leads.
func (s *Servers) Leader(t testing.TB) int {
	t.Helper()
	leader := -1
	s.until(t, "has a leader", func(ctx context.Context) error {
		var errs []error
		for i := range s.servers {
			yes, err := s.leader(ctx, i)
			if yes {
				leader = i
				return nil
			}
			errs = append(errs, err)
		}
		return errors.Join(append(errs, errors.New("nobody leads"))...)
	})
	return leader
}

// Await waits until every server answers, and each with a majority behind it.
func (s *Servers) Await(t testing.TB) {
	t.Helper()
	for i := range s.servers {
		s.until(t, fmt.Sprintf("answers at %v", s.addrs[i]), func(ctx context.Context) error { return s.answers(ctx, i) })
	}
}

func (s *Servers) until(t testing.TB, what string, ok func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), Within)
	defer cancel()
	for {
		err := func() error {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			return ok(ctx)
		}()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("no store that %s within %v: %v", what, Within, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *Servers) do(t testing.TB, i int, what string, f func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), Within)
	defer cancel()
	if err := f(ctx); err != nil {
		t.Errorf("%s server %d: %v", what, i, err) // may be called by several goroutines
	}
}

func each(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}

// process is a server that is a process of its own.
type process struct {
	keeper *proc.Keeper
	member dcsserver.Member
}

func (p process) down(ctx context.Context, kill bool) error {
	if !kill {
		orderly, cancel := context.WithTimeout(ctx, grace)
		defer cancel()
		if err := p.keeper.Down(orderly, syscall.SIGTERM); err == nil {
			return nil
		}
	}
	return p.keeper.Down(ctx, syscall.SIGKILL)
}

// grace is what an orderly stop may take: Consul's can hang (1.22.2, once in some hundreds).
const grace = 3 * time.Second

func (p process) up(ctx context.Context) error { return p.keeper.Start(ctx) }

func (p process) name() string { return p.member.Name }

func (p process) data() string { return p.member.Data() }

// run starts n servers as processes: command says how to start each.
func run(t testing.TB, n int, command func(members []dcsserver.Member, i int) (proc.Command, error)) *Servers {
	t.Helper()
	s := &Servers{t: t}
	dir, err := os.MkdirTemp("", "pgconvoy-store-") //nolint:usetesting // the test's own has a name too long for some
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if left := leak.Processes(t, dir); len(left) > 0 {
			t.Errorf("servers outlive their test: %v", left)
		}
		if t.Failed() {
			t.Logf("the servers' files stay in %s", dir)
			return
		}
		_ = os.RemoveAll(dir)
	})
	members := make([]dcsserver.Member, n)
	addr := func() netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(porttest.Free(t)))
	}
	for i := range members {
		name := fmt.Sprintf("s%d", i+1)
		members[i] = dcsserver.Member{Name: name, Dir: filepath.Join(dir, name), Client: addr(), Peer: addr(), Gossip: addr()}
		if err := os.Mkdir(members[i].Dir, 0o755); err != nil {
			t.Fatal(err)
		}
		s.addrs = append(s.addrs, members[i].Client)
	}
	starter := proc.NewStarter()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	t.Cleanup(func() {
		each(n, func(i int) { // nobody comes back to them
			ctx, cancel := context.WithTimeout(context.Background(), Within)
			defer cancel()
			if i < len(s.servers) {
				_ = s.servers[i].down(ctx, true) // it may be down
			}
		})
		cancel()
		wg.Wait()
		starter.Close()
	})
	for i := range members {
		c, err := command(members, i)
		if err != nil {
			t.Fatal(err)
		}
		k := &proc.Keeper{Starter: starter, Command: c}
		s.servers = append(s.servers, process{k, members[i]})
		wg.Go(func() {
			if err := k.Run(ctx); err != nil {
				t.Errorf("server %s: %v", c.Name, err)
			}
		})
	}
	return s
}

// program is the path of a program that the set-up installs, or PATH has. Without it the test is skipped; where
// PGCONVOY_REQUIRE is set, as `make test` does, it fails.
func program(t testing.TB, name string) string {
	t.Helper()
	if home := os.Getenv("PGCONVOY_HOME"); home != "" {
		path := filepath.Join(home, "bin", name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		missing(t, fmt.Sprintf("no %s; scripts/setup --stores installs it, and PGCONVOY_HOME names where (%v)", name, err))
	}
	return path
}

func missing(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("PGCONVOY_REQUIRE") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

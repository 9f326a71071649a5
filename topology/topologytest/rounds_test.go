package topologytest

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/leak"
	"github.com/pgconvoy/pgconvoy/topology"
	"github.com/pgconvoy/pgconvoy/topology/ledger"
)

// TestRounds starts and stops a whole stack again and again: nothing of it is left, no process, no port, no file, no
// goroutine. PGCONVOY_ROUNDS makes it more than two rounds.
func TestRounds(t *testing.T) {
	requirePrograms(t, Options{})
	rounds := 2
	if n := os.Getenv("PGCONVOY_ROUNDS"); n != "" {
		var err error
		if rounds, err = strconv.Atoi(n); err != nil || rounds < 1 {
			t.Fatalf("PGCONVOY_ROUNDS is %q, which is no number of rounds", n)
		}
	}
	tmp := leak.TempDir(t)
	t.Setenv("TMPDIR", tmp)
	var starts, stops []time.Duration
	for i := range rounds {
		t.Run(fmt.Sprint(i+1), func(t *testing.T) {
			leak.Check(t)
			began := time.Now()
			u, err := launch(t.Context(), Options{}, t.Name())
			if err != nil {
				t.Error(err)
			}
			if u == nil {
				return
			}
			t.Cleanup(func() { u.stop() })
			starts = append(starts, time.Since(began))
			ports := portsOf(u)
			for _, a := range ports { // the test can fail
				for deadline := time.Now().Add(10 * time.Second); !accepts(a); time.Sleep(10 * time.Millisecond) {
					if time.Now().After(deadline) {
						t.Fatalf("nobody listens at %v", a)
					}
				}
			}
			if len(leak.Processes(t, tmp)) < 10 {
				t.Errorf("the stack's processes are not found: %v", leak.Processes(t, tmp))
			}
			memory := segmentsOf(t, tmp)
			if len(memory) != 3 {
				t.Errorf("shared memory of %d nodes: %v", len(memory), memory)
			}
			began = time.Now()
			u.end(t)
			stops = append(stops, time.Since(began))
			for _, a := range ports {
				if accepts(a) {
					t.Errorf("somebody still listens at %v", a)
				}
			}
			for _, id := range memory {
				if isSegment(t, id) {
					t.Errorf("the shared memory segment %s is left", id)
				}
			}
			if left := leak.Processes(t, tmp); len(left) > 0 {
				t.Errorf("processes are left: %v", left)
			}
			if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
				t.Errorf("files are left: %v %v", left, err)
			}
		})
	}
	slices.Sort(starts)
	slices.Sort(stops)
	if n := len(starts); n > 0 {
		t.Logf("%d rounds: start median %v, longest %v; stop median %v, longest %v", n, starts[n/2], starts[n-1], stops[len(stops)/2], stops[len(stops)-1])
	}
}

// TestSideBySide: two stacks in one program do not know of each other.
func TestSideBySide(t *testing.T) {
	o := Options{Spec: topology.Spec{Nodes: topology.NodesNamed(1), Poolers: topology.PoolersNamed(1, 0)}}
	for _, name := range []string{"one", "other"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := Start(t, o)
			l := s.Write(t, ledger.Load{Writers: 2})
			l.Await(100)
			s.Kill("pgb-1/agent")()
			l.Await(100)
			if r := l.Stop(); r.Failed > 0 || r.Lost > 0 || r.Surplus > 0 {
				t.Errorf("%v", r)
			}
		})
	}
}

// portsOf are the addresses at which a whole stack listens.
func portsOf(u *running) []netip.AddrPort {
	spec := u.r.Spec()
	ports := []netip.AddrPort{spec.Envoy.Write, spec.Envoy.Read, spec.Envoy.Admin}
	for _, n := range spec.Nodes {
		ports = append(ports, n.Postgres, n.API)
	}
	for _, p := range spec.Poolers {
		ports = append(ports, p.Listen)
	}
	for _, k := range u.links.all {
		for _, p := range k.proxies {
			ports = append(ports, p.addr, p.upstream)
		}
	}
	return ports
}

func accepts(a netip.AddrPort) bool {
	conn, err := net.DialTimeout("tcp", a.String(), time.Second)
	if err != nil {
		return false
	}
	return conn.Close() == nil
}

// segmentsOf are the ids of the shared memory of all nodes of a stack, which PostgreSQL writes into its data folder.
func segmentsOf(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*", "*", "data", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if lines := strings.Split(string(b), "\n"); len(lines) > 6 {
			if words := strings.Fields(lines[6]); len(words) == 2 && isSegment(t, words[1]) {
				ids = append(ids, words[1])
			}
		}
	}
	return ids
}

func isSegment(t *testing.T, id string) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/sysvipc/shm")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if words := strings.Fields(line); len(words) > 1 && words[1] == id {
			return true
		}
	}
	return false
}

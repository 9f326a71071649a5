package topologytest_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgconvoy/pgconvoy/internal/porttest"
	"github.com/pgconvoy/pgconvoy/internal/proc"
	"github.com/pgconvoy/pgconvoy/topology"
	"github.com/pgconvoy/pgconvoy/topology/topologytest"
)

// haproxyConfig is what Patroni gives HAProxy as a sample, for the nodes of a stack: the primary only, which Patroni
// names, and straight to its PostgreSQL. The statistics page and the replicas' listener are left out.
func haproxyConfig(port int, nodes []topology.Node) string {
	var c strings.Builder
	fmt.Fprintf(&c, `global
	maxconn 100
	log stdout format raw local0 notice

defaults
	log global
	mode tcp
	retries 2
	timeout client 30m
	timeout connect 4s
	timeout server 30m
	timeout check 5s

listen primary
	bind 127.0.0.1:%d
	option httpchk OPTIONS /primary
	http-check expect status 200
	default-server inter 3s fall 3 rise 2 on-marked-down shutdown-sessions
`, port)
	for _, n := range nodes {
		fmt.Fprintf(&c, "\tserver %s %v maxconn 100 check addr %v port %d\n", n.Name, n.Postgres, n.API.Addr(), n.API.Port())
	}
	return c.String()
}

// startHAProxy runs an HAProxy before a stack's nodes and returns the DSN of an application that goes through it, when
// that reaches the primary. It ends with the benchmark. Where there is no HAProxy the result is empty.
func startHAProxy(b *testing.B, s *topologytest.Stack) (dsn string) {
	b.Helper()
	program, err := exec.LookPath("haproxy")
	for _, usual := range []string{"/usr/sbin/haproxy", "/usr/local/sbin/haproxy"} {
		if err != nil {
			program, err = exec.LookPath(usual)
		}
	}
	if err != nil {
		b.Logf("no HAProxy in PATH or in the usual folders: what its clients would have seen is left out (%v)", err)
		return ""
	}
	port := porttest.Free(b)
	nodes := s.Spec().Nodes
	config := filepath.Join(b.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(config, []byte(haproxyConfig(port, nodes)), 0o600); err != nil {
		b.Fatal(err)
	}
	k := &proc.Keeper{Starter: proc.NewStarter(), Command: proc.Command{
		Name: "haproxy", Path: program, Args: []string{"-db", "-f", config}, Log: filepath.Join(s.Logs(), "haproxy.log"),
	}}
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.Context()))
	var running sync.WaitGroup
	running.Go(func() {
		if err := k.Run(ctx); err != nil {
			b.Errorf("HAProxy: %v", err)
		}
	})
	b.Cleanup(func() {
		cancel()
		running.Wait()
		k.Starter.Close()
	})
	u, err := url.Parse(s.DirectDSN(nodes[0].Name))
	if err != nil {
		b.Fatal("the DSN of a node is no URL") // it is not shown: it holds a password
	}
	u.Host = fmt.Sprintf("127.0.0.1:%d", port)
	awaitPrimary(b, u.String())
	return u.String()
}

// awaitPrimary waits until a DSN leads to a primary.
func awaitPrimary(b *testing.B, dsn string) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 2*time.Minute)
	defer cancel()
	for {
		standby, err := inRecovery(ctx, dsn)
		if err == nil && !standby {
			return
		}
		select {
		case <-ctx.Done():
			b.Fatalf("no primary behind the balancer: in recovery %v, %v", standby, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// inRecovery connects, asks and leaves.
func inRecovery(ctx context.Context, dsn string) (standby bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return false, err
	}
	defer func() { _ = c.Close(context.WithoutCancel(ctx)) }()
	err = c.QueryRow(ctx, "select pg_is_in_recovery()").Scan(&standby)
	return standby, err
}

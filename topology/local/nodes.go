package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/launcher"
	"github.com/pgconvoy/pgconvoy/internal/proc"
	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/topology"
)

// The users of a local stack.
const (
	superuser   = "postgres"
	replication = "replicator"
	monitor     = "pgconvoy" // whom agents ask servers as
	console     = "pgconvoy" // of PgBouncer's admin console
	restUser    = "pgconvoy" // of Patroni's REST API
)

// launchFile is the program that starts Patroni.
const launchFile = "launch.py"

func (s *Stack) dataDir(node string) string { return filepath.Join(s.folder.dir, node, "data") }

// startNodes starts Patroni for each node: under tini, which reaps the databases that Patroni detaches from itself. A
// postmaster that is not reaped at once is taken for alive by Patroni.
func (s *Stack) startNodes(ctx context.Context) error {
	s.progress("the databases")
	program := filepath.Join(s.folder.dir, launchFile)
	if err := s.folder.write(program, launcher.Python, 0o644); err != nil {
		return fmt.Errorf("local: %w", err)
	}
	for _, n := range s.spec.Nodes {
		dir, err := s.folder.own(n.Name)
		if err != nil {
			return fmt.Errorf("local: %w", err)
		}
		config, err := s.nodeConfig(n, dir)
		if err != nil {
			return err
		}
		file := filepath.Join(dir, "patroni.yml")
		if err := s.folder.write(file, config, 0o600); err != nil {
			return fmt.Errorf("local: %w", err)
		}
		if err := s.beforeStop(n.Name).Install(ctx); err != nil {
			return &stackError{"the hook of " + n.Name, err}
		}
		s.supervise(ctx, &s.nodes, s.onDisk(proc.Command{
			Name: n.Name, Path: s.bin.Tini, Args: []string{"-s", "--", s.bin.Python, program, file},
			Dir: dir, Log: s.logFile(n.Name), User: s.folder.user, Env: []string{"PYTHONUNBUFFERED=1"},
			Death: syscall.SIGTERM, // passed on to Patroni, which stops its PostgreSQL
			Grace: 30 * time.Second,
		}, s.dataDir(n.Name)))
	}
	return nil
}

func (s *Stack) nodeConfig(n topology.Node, dir string) ([]byte, error) {
	namespace, scope, _ := strings.Cut(s.spec.Path[1:], "/")
	bootstrap, err := s.bootstrap(dir)
	if err != nil {
		return nil, err
	}
	hook, err := s.hookScript(n.Name, dir)
	if err != nil {
		return nil, fmt.Errorf("local: %w", err)
	}
	sec, at := s.folder.secrets, s.wiring.nodes[n.Name]
	parameters := map[string]string{
		"max_connections": "200", "shared_buffers": "64MB", "unix_socket_directories": "",
		"max_wal_senders": "10", "wal_keep_size": "128MB", "password_encryption": "scram-sha-256",
		"log_min_messages": "warning",
	}
	if s.folder.throwaway {
		parameters["dynamic_shared_memory_type"] = "mmap" // files among the data, which go with it, also after a kill
	}
	maps.Copy(parameters, s.spec.Parameters)
	dynamic := map[string]any{
		"ttl": s.spec.Timing.TTL, "loop_wait": s.spec.Timing.LoopWait, "retry_timeout": s.spec.Timing.RetryTimeout,
		"maximum_lag_on_failover": 1 << 20,
		"synchronous_mode":        !s.spec.Asynchronous && len(s.spec.Nodes) > 1,
		"primary_start_timeout":   0, // a crashed primary is replaced, not repaired first
		"postgresql":              map[string]any{"use_pg_rewind": true, "use_slots": true, "parameters": parameters},
	}
	c := patroni.NodeConfig{
		Scope: scope, Namespace: "/" + namespace, Name: n.Name,
		REST: patroni.RESTConfig{
			Listen: n.API, ConnectAddress: at.api,
			Authentication: &patroni.Credentials{Username: restUser, Password: sec.REST},
		},
		Bootstrap: patroni.BootstrapConfig{
			DCS: dynamic, InitDB: s.initdb(), PostBootstrap: bootstrap,
		},
		Postgres: patroni.PostgresConfig{
			Listen: n.Postgres, ConnectAddress: at.replication, DataDir: s.dataDir(n.Name), BinDir: s.bin.Postgres,
			Pgpass: filepath.Join(dir, "pgpass"),
			Authentication: patroni.Authentication{
				Superuser:   patroni.Credentials{Username: superuser, Password: sec.Superuser},
				Replication: patroni.Credentials{Username: replication, Password: sec.Replication},
			},
			BaseBackup: s.basebackup(), BeforeStop: hook,
			HBA: []string{
				"host all all 127.0.0.0/8 scram-sha-256",
				"host replication " + replication + " 127.0.0.0/8 scram-sha-256",
			},
		},
	}
	if err := s.nodeStore(&c); err != nil {
		return nil, err
	}
	if at.poolers != at.replication {
		c.Postgres.ProxyAddress = at.poolers.String()
	}
	if s.lastWord != nil {
		if err := s.lastWord(n.Name, &c); err != nil {
			return nil, fmt.Errorf("local: Runner.Node for %s: %w", n.Name, err)
		}
	}
	return c.YAML()
}

// nodeStore tells a node's Patroni where the store is.
func (s *Stack) nodeStore(c *patroni.NodeConfig) error {
	store, err := s.dcs.from(manager(c.Name))
	if err != nil {
		return err
	}
	hosts, err := store.hosts()
	if err != nil {
		return err
	}
	switch store.Kind {
	case consulKind: // each node has its server, as elsewhere an agent beside it
		i := slices.IndexFunc(s.spec.Nodes, func(n topology.Node) bool { return n.Name == c.Name })
		c.Consul = &patroni.ConsulConfig{Host: hosts[i%len(hosts)], Consistency: "consistent"}
	case zookeeperKind:
		c.ZooKeeper = &patroni.ZooKeeperConfig{Hosts: hosts}
	default:
		c.Etcd3 = &patroni.Etcd3Config{Hosts: hosts, UseProxies: s.wiring.via != nil}
	}
	return nil
}

func (s *Stack) initdb() []any {
	options := []any{map[string]string{"encoding": "UTF8"}, map[string]string{"locale": "C"}, "data-checksums"}
	if s.folder.throwaway {
		options = append(options, "no-sync") // nobody comes back to these files
	}
	return options
}

// basebackup makes replicas start with the primary's checkpoint now, instead of one that is spread over minutes.
func (s *Stack) basebackup() []any {
	options := []any{map[string]string{"checkpoint": "fast"}}
	if s.folder.throwaway {
		options = append(options, "no-sync")
	}
	return options
}

// bootstrap writes what Patroni runs once, on the first primary: it makes the application's user and database, and the
// user that agents ask as.
func (s *Stack) bootstrap(dir string) (string, error) {
	sec := s.folder.secrets
	sql := fmt.Sprintf(`CREATE ROLE "%[1]s" LOGIN PASSWORD '%[2]s';
CREATE DATABASE "%[1]s" OWNER "%[1]s";
CREATE ROLE %[3]s LOGIN PASSWORD '%[4]s';
GRANT pg_monitor TO %[3]s;
`, s.spec.Database, string(sec.App), monitor, string(sec.Monitor))
	statements := filepath.Join(dir, "bootstrap.sql")
	if err := s.folder.write(statements, []byte(sql), 0o600); err != nil {
		return "", fmt.Errorf("local: %w", err)
	}
	script := filepath.Join(dir, "bootstrap.sh")
	text := fmt.Sprintf("#!/bin/sh\nexec '%s/psql' -X -q -v ON_ERROR_STOP=1 -f '%s' \"$1\"\n", s.bin.Postgres, statements)
	if err := s.folder.write(script, []byte(text), 0o700); err != nil {
		return "", fmt.Errorf("local: %w", err)
	}
	return script, nil
}

// endOrphans ends databases that outlived their Patroni, and gives back what killed ones have left.
func (s *Stack) endOrphans(ctx context.Context) error {
	var errs []error
	for _, n := range s.spec.Nodes {
		memory := segmentOf(s.dataDir(n.Name))
		for _, pid := range s.orphan(n.Name) {
			_ = kill(pid, syscall.SIGQUIT) // it may end by itself meanwhile
			errs = append(errs, s.ended(ctx, n.Name, pid))
		}
		memory.free()
	}
	return errors.Join(errs...)
}

// orphan is the postmaster in a node's data folder, whoever has started it; none with a disk of its own, which goes
// with the node's program.
func (s *Stack) orphan(node string) []int {
	dir := s.dataDir(node)
	pid, err := postmaster(dir)
	if err != nil || !runsIn(pid, dir) {
		return nil
	}
	return []int{pid}
}

// ended waits until a postmaster that was told to end is gone, and kills it when it is not after five seconds.
func (s *Stack) ended(ctx context.Context, node string, pid int) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for s.runs(pid, node) {
		select {
		case <-ctx.Done():
			_ = kill(pid, syscall.SIGKILL) // likewise
			return fmt.Errorf("local: the PostgreSQL of %s (process %d) did not end and was killed", node, pid)
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// runs reports whether a process is a node's postmaster still.
func (s *Stack) runs(pid int, node string) bool {
	if s.disk == 0 {
		return runsIn(pid, s.dataDir(node))
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) // its folder cannot be seen from here
	return err == nil && !bytes.Contains(b, []byte("\nState:\tZ"))
}

// runsIn reports whether a process works in a folder: a postmaster works in its data folder.
func runsIn(pid int, dir string) bool {
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	return err == nil && cwd == dir
}

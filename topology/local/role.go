package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
	"google.golang.org/grpc"

	"github.com/pgconvoy/pgconvoy/dcs/embedded"
	"github.com/pgconvoy/pgconvoy/envoyconf/xds"
	"github.com/pgconvoy/pgconvoy/internal/proc"
	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/pooler"
	"github.com/pgconvoy/pgconvoy/topology"
)

// roleFile is the environment variable that tells a process its role.
const roleFile = "PGCONVOY_ROLE"

// RunRole runs the role that this process was started for by a stack with [Runner.Roles], until it is told to end
// (SIGTERM) or ctx ends, and reports whether there was one. A program that Roles names calls it before anything else.
func RunRole(ctx context.Context) (ran bool, err error) {
	file, ok := os.LookupEnv(roleFile)
	if !ok {
		return false, nil
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	var r role
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		return true, fmt.Errorf("local: the file of a role, $%s: %w", roleFile, err)
	}
	if err := r.run(ctx, slog.New(slog.NewTextHandler(os.Stderr, nil))); ctx.Err() == nil {
		return true, fmt.Errorf("local: %s: %w", r.Component, err)
	}
	return true, nil
}

// role is one agent, control plane or etcd member: all that it has to know, in whatever process it runs. It holds
// passwords.
type role struct {
	Component string
	Path      string
	DCS       DCS // as this role reaches it

	// One of these.
	Agent        *agentRole        `json:",omitempty"`
	ControlPlane *controlPlaneRole `json:",omitempty"`
	Member       *memberRole       `json:",omitempty"`
}

type agentRole struct {
	Name     string
	Service  topology.Service
	Register netip.AddrPort // as Envoy reaches the pooler
	Config   string         // pgbouncer.ini
	Console  string         // DSN, as this agent reaches it
	Monitor  string         // DSN of any node
	API      string         // password
	NoSync   bool
	Detours  detours
}

type controlPlaneRole struct {
	Name   string
	Listen netip.AddrPort
}

type memberRole struct {
	Name   string
	Dir    string
	Listen netip.AddrPort
	Peers  map[string]netip.AddrPort
	NoSync bool
	Log    string
}

func (r *role) run(ctx context.Context, log *slog.Logger) error {
	if r.Member != nil {
		return r.Member.run(ctx)
	}
	store, closed, err := r.DCS.Open()
	if err != nil {
		return err
	}
	defer closed()
	cluster := topology.Cluster{Path: r.Path, Store: store, Logger: log}
	if r.Agent != nil {
		return r.Agent.run(ctx, cluster)
	}
	return r.ControlPlane.run(ctx, cluster)
}

func (a *agentRole) run(ctx context.Context, cluster topology.Cluster) error {
	admin, err := pgconn.ParseConfig(a.Console)
	if err != nil {
		return err
	}
	monitor, err := pgconn.ParseConfig(a.Monitor)
	if err != nil {
		return err
	}
	monitor.DialFunc = a.Detours.dial
	cluster.Prober = &patroni.SQL{Connect: patroni.Connector(monitor)}
	control := &pooler.Local{Config: a.Config, Connect: pooler.ConnectWith(admin), Keep: true, NoSync: a.NoSync}
	defer func() { _ = control.Close() }() // nothing is lost with it
	agent := &topology.Agent{
		Cluster: cluster, Name: a.Name, Service: a.Service, Listen: a.Register, Pooler: control,
		Patroni: &patroni.Client{HTTP: a.Detours.http(), Username: restUser, Password: patroni.Secret(a.API)},
	}
	return agent.Run(ctx)
}

func (c *controlPlaneRole) run(ctx context.Context, cluster topology.Cluster) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Listen.String())
	if err != nil {
		return err
	}
	router := xds.New(xds.Config{})
	server := grpc.NewServer(xds.ServerOptions()...)
	router.Register(server)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	plane := &topology.ControlPlane{Cluster: cluster, Name: c.Name, Router: router}
	err = plane.Run(ctx)
	server.Stop()
	return errors.Join(err, <-served)
}

func (m *memberRole) run(ctx context.Context) error {
	server, err := m.start(ctx)
	if err != nil {
		return err
	}
	<-ctx.Done()
	return server.Close()
}

func (m *memberRole) start(ctx context.Context) (*embedded.Server, error) {
	c := embedded.Config{Dir: m.Dir, Listen: m.Listen, NoSync: m.NoSync, Log: m.Log}
	if len(m.Peers) > 1 {
		c.Name, c.Peers = m.Name, m.Peers
	}
	return embedded.Start(ctx, c)
}

// startRole runs a role until its part ends: in a process of its own where Runner.Roles names a program.
func (s *Stack) startRole(ctx context.Context, p *part, r role) error {
	if len(s.program) == 0 {
		p.wg.Go(func() {
			if err := r.run(ctx, s.log); err != nil && ctx.Err() == nil {
				s.fail(&stackError{r.Component, err})
			}
		})
		return nil
	}
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("local: %s: %w", r.Component, err)
	}
	name := fileName(r.Component)
	file := filepath.Join(s.folder.dir, name+".json")
	if err := s.folder.keep(file, b); err != nil {
		return fmt.Errorf("local: %s: %w", r.Component, err)
	}
	c := proc.Command{
		Name: r.Component, Path: s.program[0], Args: s.program[1:], Dir: s.folder.dir, Log: s.logFile(name),
		Env: []string{roleFile + "=" + file},
	}
	if r.Member != nil && s.folder.throwaway {
		c.Stop = syscall.SIGKILL // of several, the last would wait for the others before it ends
	}
	s.supervise(ctx, p, c)
	return nil
}

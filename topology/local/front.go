package local

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/pgconvoy/pgconvoy/envoyconf"
	"github.com/pgconvoy/pgconvoy/internal/proc"
	"github.com/pgconvoy/pgconvoy/pooler"
	"github.com/pgconvoy/pgconvoy/topology"
)

// poolerFile is the configuration of a pooler, in its folder.
const poolerFile = "pgbouncer.ini"

// startControlPlane serves the fleet to Envoy.
func (s *Stack) startControlPlane(ctx context.Context) error {
	store, err := s.dcs.from(controlPlane)
	if err != nil {
		return err
	}
	return s.startRole(ctx, &s.roles, role{
		Component: controlPlane, Path: s.spec.Path, DCS: store,
		ControlPlane: &controlPlaneRole{Name: controlPlane, Listen: s.xdsAddr},
	})
}

// startPoolers starts each PgBouncer, pointed at nothing, and its agent.
func (s *Stack) startPoolers(ctx, roles context.Context) error {
	s.progress("the poolers")
	for i, p := range s.spec.Poolers {
		dir, err := s.folder.own(p.Name)
		if err != nil {
			return fmt.Errorf("local: %w", err)
		}
		users := pooler.UserList{
			{Name: s.spec.Database, Password: pooler.Secret(s.folder.secrets.App)},
			{Name: console, Password: pooler.Secret(s.folder.secrets.Console)},
		}
		list, err := users.Bytes()
		if err != nil {
			return fmt.Errorf("local: %s: %w", p.Name, err)
		}
		userlist := filepath.Join(dir, "userlist.txt")
		if err := s.folder.write(userlist, list, 0o600); err != nil {
			return fmt.Errorf("local: %w", err)
		}
		ini, err := s.ini(i, userlist).Bytes()
		if err != nil {
			return fmt.Errorf("local: %s: %w", p.Name, err)
		}
		config := filepath.Join(dir, poolerFile)
		if err := s.folder.write(config, ini, 0o600); err != nil {
			return fmt.Errorf("local: %w", err)
		}
		s.supervise(ctx, &s.front, proc.Command{
			Name: p.Name, Path: s.bin.PgBouncer, Args: []string{config}, Dir: dir, Log: s.logFile(p.Name),
			User: s.folder.user, Stop: syscall.SIGKILL, // it keeps nothing
		})
		if err := s.startAgent(roles, p, config); err != nil {
			return err
		}
	}
	return nil
}

func (s *Stack) startAgent(ctx context.Context, p topology.PgBouncer, config string) error {
	name := agentOf(p.Name)
	register, err1 := s.wiring.reach(envoy, p.Name, p.Listen)
	admin, err2 := s.wiring.reach(name, p.Name, p.Listen)
	detours, err3 := s.wiring.detours(name, s.spec)
	store, err4 := s.dcs.from(name)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	secrets := s.folder.secrets
	return s.startRole(ctx, &s.roles, role{
		Component: name, Path: s.spec.Path, DCS: store,
		Agent: &agentRole{
			Name: p.Name, Service: p.Service(), Register: register, Config: config, NoSync: s.folder.throwaway,
			Console: dsn(admin, console, secrets.Console, "pgbouncer"),
			Monitor: dsn(s.spec.Nodes[0].Postgres, monitor, secrets.Monitor, "postgres"),
			API:     string(secrets.REST), Detours: detours,
		},
	})
}

func (s *Stack) ini(i int, userlist string) pooler.Ini {
	p := s.spec.Poolers[i]
	ini := pooler.Ini{
		Settings: pooler.Params{
			"listen_addr": p.Listen.Addr().String(), "listen_port": strconv.Itoa(int(p.Listen.Port())), "unix_socket_dir": "",
			"auth_type": "scram-sha-256", "auth_file": userlist, "admin_users": console,
			"pool_mode": "transaction", "default_pool_size": "20", "max_client_conn": "2000",
			"max_prepared_statements": "200", "ignore_startup_parameters": "extra_float_digits",
			"server_login_retry": "0", "server_connect_timeout": "2", "query_wait_timeout": "120",
			"server_check_delay": "30", "listen_backlog": "1024",
			"log_connections": "0", "log_disconnections": "0", // a health check is one of each
		},
		PeerID:    i + 1,
		Databases: []pooler.Entry{{Name: s.spec.Database, Params: pooler.Params{"host": "127.0.0.1", "port": "1"}}},
	}
	for j, other := range s.spec.Poolers {
		ini.Peers = append(ini.Peers, pooler.Peer{ID: j + 1, Addr: other.Listen})
	}
	return ini
}

func (s *Stack) startEnvoy(ctx context.Context) error {
	s.progress("Envoy")
	dir, err := s.folder.own(envoy)
	if err != nil {
		return fmt.Errorf("local: %w", err)
	}
	plane, err := s.wiring.reach(envoy, controlPlane, s.xdsAddr)
	if err != nil {
		return err
	}
	fleet := envoyconf.Fleet{
		Node: envoy, Admin: s.spec.Envoy.Admin, ControlPlanes: []netip.AddrPort{plane},
		Listeners: []envoyconf.Listener{{Service: topology.Write.String(), Listen: s.spec.Envoy.Write}},
	}
	if s.reads() {
		fleet.Listeners = append(fleet.Listeners, envoyconf.Listener{Service: topology.Read.String(), Listen: s.spec.Envoy.Read})
	}
	bootstrap, err := envoyconf.L4{}.Bootstrap(fleet)
	if err != nil {
		return fmt.Errorf("local: Envoy: %w", err)
	}
	config := filepath.Join(dir, "envoy.json")
	if err := s.folder.write(config, bootstrap, 0o600); err != nil {
		return fmt.Errorf("local: %w", err)
	}
	s.supervise(ctx, &s.front, proc.Command{
		Name: envoy, Path: s.bin.Envoy, Dir: dir, Log: s.logFile(envoy), User: s.folder.user,
		Args: []string{"-c", config, "--disable-hot-restart", "--concurrency", "1", "--log-level", "warn"},
	})
	return nil
}

// reads reports whether the stack has a read service.
func (s *Stack) reads() bool {
	for _, p := range s.spec.Poolers {
		if p.Read {
			return true
		}
	}
	return false
}

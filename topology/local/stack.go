package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"google.golang.org/grpc"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/envoyconf/xds"
	"github.com/pgconvoy/pgconvoy/internal/proc"
	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/topology"
)

// Stack is a running stack. It is valid while the function that Run calls with it runs.
type Stack struct {
	spec     topology.Spec
	folder   *folder
	bin      Binaries
	versions map[string]string
	log      *slog.Logger
	progress func(string)
	fail     context.CancelCauseFunc
	etcd     []string // of the caller; empty: embedded
	began    time.Time

	starter *proc.Starter
	dcs     *store
	router  *xds.Server
	grpc    *grpc.Server
	xdsAddr netip.AddrPort

	hookAddr netip.AddrPort
	hookWord patroni.Secret // what a hook's script shows

	// Parts end in this order: who steers, who serves clients, the databases.
	roles, front, nodes part

	mu   sync.Mutex
	pids map[string]int
}

// part is a group of programs or roles that end together.
type part struct {
	cancel context.CancelFunc
	group  proc.Group
	wg     sync.WaitGroup
}

func (p *part) stop() error {
	if p.cancel != nil {
		p.cancel()
	}
	p.wg.Wait()
	return p.group.Wait()
}

func (s *Stack) start(ctx context.Context) error {
	s.starter = proc.NewStarter()
	detached := context.WithoutCancel(ctx) // parts do not end with ctx, but in their order
	rolesCtx, cancelRoles := context.WithCancel(detached)
	frontCtx, cancelFront := context.WithCancel(detached)
	nodesCtx, cancelNodes := context.WithCancel(detached)
	s.roles.cancel, s.front.cancel, s.nodes.cancel = cancelRoles, cancelFront, cancelNodes
	s.progress("the store")
	var err error
	if s.dcs, err = s.openStore(ctx); err != nil {
		return err
	}
	if err := s.startHook(rolesCtx); err != nil {
		return err
	}
	if err := s.startNodes(nodesCtx); err != nil {
		return err
	}
	if err := s.startControlPlane(rolesCtx); err != nil {
		return err
	}
	if err := s.startPoolers(frontCtx, rolesCtx); err != nil {
		return err
	}
	return s.startEnvoy(frontCtx)
}

// stop ends everything and waits for it.
func (s *Stack) stop() error {
	var errs []error
	errs = append(errs, s.roles.stop(), s.front.stop())
	if s.grpc != nil {
		s.grpc.Stop()
	}
	errs = append(errs, s.nodes.stop(), s.endOrphans())
	if s.dcs != nil {
		errs = append(errs, s.dcs.close())
	}
	if s.starter != nil {
		s.starter.Close()
	}
	errs = append(errs, s.folder.close())
	return errors.Join(errs...)
}

// supervise keeps a program of the stack running.
func (s *Stack) supervise(ctx context.Context, p *part, c proc.Command) {
	p.group.Go(ctx, s.starter, c, func(pid int) { s.setPID(c.Name, pid) }, func(err error) {
		s.fail(&stackError{c.Name, err})
	})
}

// role runs a role of package topology until its part ends.
func (s *Stack) role(ctx context.Context, name string, run func(context.Context) error) {
	s.roles.wg.Go(func() {
		if err := run(ctx); err != nil && ctx.Err() == nil {
			s.fail(&stackError{name, err})
		}
	})
}

func (s *Stack) setPID(name string, pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pids[name] = pid
}

func (s *Stack) logFile(name string) string { return filepath.Join(s.folder.dir, name+".log") }

// Spec is what runs, with all addresses filled in.
func (s *Stack) Spec() topology.Spec { return s.spec }

// Dir is the stack's folder, with data and logs.
func (s *Stack) Dir() string { return s.folder.dir }

// Versions are those of the programs that run: "PostgreSQL", "Patroni", "PgBouncer", "Envoy".
func (s *Stack) Versions() map[string]string { return maps.Clone(s.versions) }

// Store is the stack's configuration store.
func (s *Stack) Store() dcs.Store { return s.dcs.store }

// WriteDSN leads an application through Envoy and a PgBouncer to the primary. It holds a password.
func (s *Stack) WriteDSN() string {
	return dsn(s.spec.Envoy.Write, s.spec.Database, s.folder.secrets.App, s.spec.Database)
}

// ReadDSN leads an application through Envoy and a PgBouncer to the replicas. It holds a password.
func (s *Stack) ReadDSN() string {
	return dsn(s.spec.Envoy.Read, s.spec.Database, s.folder.secrets.App, s.spec.Database)
}

// DirectDSN leads the application's user straight to a node; empty for an unknown name. It holds a password.
func (s *Stack) DirectDSN(node string) string {
	n, ok := s.node(node)
	if !ok {
		return ""
	}
	return dsn(n.Postgres, s.spec.Database, s.folder.secrets.App, s.spec.Database)
}

// SuperuserDSN leads the superuser straight to a node; empty for an unknown name. It holds a password.
func (s *Stack) SuperuserDSN(node string) string {
	n, ok := s.node(node)
	if !ok {
		return ""
	}
	return dsn(n.Postgres, superuser, s.folder.secrets.Superuser, "postgres")
}

// AdminDSN leads to a pooler's console, which speaks simple queries only; empty for an unknown name. It holds a password.
func (s *Stack) AdminDSN(pooler string) string {
	for _, p := range s.spec.Poolers {
		if p.Name == pooler {
			return dsn(p.Listen, console, s.folder.secrets.Console, "pgbouncer")
		}
	}
	return ""
}

func dsn(addr netip.AddrPort, user string, password patroni.Secret, database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(user, string(password)), Host: addr.String(), Path: "/" + database, RawQuery: "sslmode=disable"}
	return u.String()
}

func (s *Stack) node(name string) (topology.Node, bool) {
	for _, n := range s.spec.Nodes {
		if n.Name == name {
			return n, true
		}
	}
	return topology.Node{}, false
}

// Patroni is a client with the credentials of the stack's REST APIs.
func (s *Stack) Patroni() *patroni.Client {
	return &patroni.Client{Username: restUser, Password: s.folder.secrets.REST}
}

// Cluster is what roles of this stack share; the prober asks as the superuser, so that it can also checkpoint.
func (s *Stack) Cluster() topology.Cluster {
	return s.cluster(superuser, s.folder.secrets.Superuser)
}

func (s *Stack) cluster(user string, password patroni.Secret) topology.Cluster {
	config, err := pgconn.ParseConfig(dsn(s.spec.Nodes[0].Postgres, user, password, "postgres"))
	if err != nil {
		panic(err) // the DSN is made above
	}
	return topology.Cluster{
		Path: s.spec.Path, Store: s.Store(), Prober: &patroni.SQL{Connect: patroni.Connector(config)}, Logger: s.log,
	}
}

// Coordinator carries out operations on this stack.
func (s *Stack) Coordinator() *topology.Coordinator {
	return &topology.Coordinator{Cluster: s.Cluster(), Patroni: s.Patroni()}
}

// Plan previews an operation.
func (s *Stack) Plan(ctx context.Context, op topology.Operation) (topology.Plan, error) {
	return s.Coordinator().Plan(ctx, op)
}

// Do carries an operation out.
func (s *Stack) Do(ctx context.Context, op topology.Operation) (topology.Report, error) {
	return s.Coordinator().Do(ctx, op)
}

// Observer reads this stack, with a prober, so that it knows a proven primary from an elected one.
func (s *Stack) Observer() *topology.Observer {
	c := s.Cluster()
	return &topology.Observer{
		Path: c.Path, Store: c.Store,
		Leaders: &patroni.Source{Store: c.Store, Path: c.Path, Prober: c.Prober},
	}
}

// View reads everything that is known of the stack.
func (s *Stack) View(ctx context.Context) topology.View { return s.Observer().View(ctx) }

// PID is the process of a component now: "n1/postgres" (the postmaster), "n1/patroni", "pgb-1" or "envoy".
func (s *Stack) PID(component string) (int, error) {
	if node, ok := strings.CutSuffix(component, "/postgres"); ok {
		if _, known := s.node(node); known {
			return postmaster(s.dataDir(node))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if pid, ok := s.pids[component]; ok {
		return pid, nil
	}
	return 0, fmt.Errorf("local: there is no component %q; a node n1 has n1/postgres and n1/patroni, poolers have their names, and there is envoy", component)
}

// Signal sends a signal to a component, named as for PID. What is killed is started again: a database by its Patroni,
// everything else by the stack.
func (s *Stack) Signal(component string, sig syscall.Signal) error {
	pid, err := s.PID(component)
	if err != nil {
		return err
	}
	if err := signal(pid, sig); err != nil {
		return fmt.Errorf("local: %s (process %d): %w", component, pid, err)
	}
	return nil
}

func signal(pid int, sig syscall.Signal) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return p.Signal(sig)
}

// postmaster is the process id in a data folder.
func postmaster(dataDir string) (int, error) {
	b, err := os.ReadFile(filepath.Join(dataDir, "postmaster.pid"))
	if err != nil {
		return 0, fmt.Errorf("local: PostgreSQL does not run: %w", err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("local: postmaster.pid in %s holds no process id", dataDir)
	}
	return pid, nil
}

// listen opens a loopback listener for a server in this process.
func listen() (net.Listener, netip.AddrPort, error) {
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	return l, l.Addr().(*net.TCPAddr).AddrPort(), nil
}

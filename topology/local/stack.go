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
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/proc"
	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/pooler"
	"github.com/pgconvoy/pgconvoy/topology"
)

// Stack is a running stack. It is valid while the function that Run calls with it runs.
type Stack struct {
	spec     topology.Spec
	folder   *folder
	logs     string
	bin      Binaries
	versions map[string]string
	log      *slog.Logger
	progress func(string)
	fail     context.CancelCauseFunc
	kind     DCS // with the endpoints of the caller's; without: our own members
	members  []member
	program  []string // runs a role; empty: this process does
	lastWord func(name string, c *patroni.NodeConfig) error
	disk     int64
	wiring   wiring

	starter *proc.Starter
	dcs     *store
	xdsAddr netip.AddrPort

	hookAddr netip.AddrPort
	hookWord patroni.Secret // what a hook's script shows

	// Parts end in this order: who steers, who serves clients, the databases, the store.
	roles, front, nodes, last part

	mu    sync.Mutex
	units map[string]*proc.Keeper // what is a process of its own, by component
	thaw  map[string]func()       // what is frozen, of the parts of a node
}

// part is a group of programs or roles that end together.
type part struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	errs   []error // of stopping
}

func (p *part) stop() error {
	if p.cancel != nil {
		p.cancel()
	}
	p.wg.Wait()
	return errors.Join(p.errs...)
}

func (s *Stack) start(ctx context.Context) error {
	s.starter = proc.NewStarter()
	detached := context.WithoutCancel(ctx) // parts do not end with ctx, but in their order
	rolesCtx, cancelRoles := context.WithCancel(detached)
	frontCtx, cancelFront := context.WithCancel(detached)
	nodesCtx, cancelNodes := context.WithCancel(detached)
	lastCtx, cancelLast := context.WithCancel(detached)
	s.roles.cancel, s.front.cancel, s.nodes.cancel, s.last.cancel = cancelRoles, cancelFront, cancelNodes, cancelLast
	if err := s.wiring.wire(s.spec); err != nil {
		return err
	}
	s.progress("the store")
	var err error
	if err := s.startMembers(lastCtx); err != nil {
		return err
	}
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
func (s *Stack) stop(ctx context.Context) error {
	s.thawAll()
	var errs []error
	if s.folder.throwaway {
		errs = append(errs, s.killAll(ctx))
	}
	errs = append(errs, s.roles.stop(), s.front.stop(), s.nodes.stop(), s.endOrphans(ctx))
	if s.dcs != nil {
		errs = append(errs, s.dcs.close())
	}
	errs = append(errs, s.last.stop())
	if s.starter != nil {
		s.starter.Close()
	}
	errs = append(errs, s.folder.close())
	return errors.Join(errs...)
}

// killAll ends all programs at once, but for the store: nobody comes back to what an orderly end would keep.
func (s *Stack) killAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	s.mu.Lock()
	units := maps.Clone(s.units)
	s.mu.Unlock()
	for _, m := range s.members {
		delete(units, m.name) // roles in this process end in order, and need it for that
	}
	var wg sync.WaitGroup
	errs := make([]error, 0, len(units))
	var mu sync.Mutex
	for name, u := range units {
		if u.PID() == 0 {
			continue // down, or not started
		}
		wg.Go(func() {
			err := s.killOne(ctx, name, u)
			if err != nil && u.PID() != 0 {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// killOne leaves a PostgreSQL the moment in which it gives its shared memory back: it would stay.
func (s *Stack) killOne(ctx context.Context, name string, u *proc.Keeper) error {
	if _, ok := s.node(name); ok {
		root := u.PID()
		pid, err1 := postmaster(s.seen(root, s.dataDir(name)))
		patroni, err2 := patroniOf(name, root)
		if err1 == nil && err2 == nil && u.Leave(ctx, patroni) == nil && kill(pid, syscall.SIGQUIT) == nil {
			// A startup process that waits for its restore_command does not hear a SIGQUIT.
			for _, child := range proc.Tree(pid) {
				if child != pid {
					_ = kill(child, syscall.SIGKILL) // it may be gone
				}
			}
			return s.ended(ctx, name, pid)
		}
	}
	return u.Down(ctx, syscall.SIGKILL)
}

func (s *Stack) logFile(name string) string { return filepath.Join(s.logs, name+".log") }

// Spec is what runs, with all addresses filled in.
func (s *Stack) Spec() topology.Spec { return s.spec }

// Dir is the stack's folder, with data and logs.
func (s *Stack) Dir() string { return s.folder.dir }

// DataDir is a node's data folder as this process sees it; an error while a node with a disk of its own is down.
func (s *Stack) DataDir(node string) (string, error) {
	u, err := s.unit(node)
	if err != nil {
		return "", err
	}
	pid := u.PID()
	if pid == 0 && s.disk > 0 {
		return "", fmt.Errorf("local: %s is down, and its data is gone", node)
	}
	return s.seen(pid, s.dataDir(node)), nil
}

// DCS is where the store is.
func (s *Stack) DCS() DCS { return s.dcs.DCS }

// Versions are those of the programs that run: "PostgreSQL", "Patroni", "PgBouncer", "Envoy", and "Consul" where the stack
// has started it.
func (s *Stack) Versions() map[string]string { return maps.Clone(s.versions) }

// Store is the stack's configuration store.
func (s *Stack) Store() dcs.Store { return s.dcs.Store }

// WriteDSN leads an application through Envoy and a PgBouncer to the primary. It holds a password.
func (s *Stack) WriteDSN() string {
	return dsn(s.wiring.write, s.spec.Database, s.folder.secrets.App, s.spec.Database)
}

// ReadDSN leads an application through Envoy and a PgBouncer to the replicas. It holds a password.
func (s *Stack) ReadDSN() string {
	return dsn(s.wiring.read, s.spec.Database, s.folder.secrets.App, s.spec.Database)
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
func (s *Stack) AdminDSN(name string) string {
	for _, p := range s.spec.Poolers {
		if p.Name == name {
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
	return &patroni.Client{HTTP: s.wiring.coordinator.http(), Username: restUser, Password: s.folder.secrets.REST}
}

// Cluster is what roles of this stack share; the prober asks as the superuser, so that it can also checkpoint.
func (s *Stack) Cluster() topology.Cluster {
	config, err := pgconn.ParseConfig(dsn(s.spec.Nodes[0].Postgres, superuser, s.folder.secrets.Superuser, "postgres"))
	if err != nil {
		panic(err) // the DSN is made above
	}
	config.DialFunc = s.wiring.coordinator.dial
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

// Observer reads this stack: with a prober, so that it knows a proven primary from an elected one and fresh replicas from
// others, past a store that does not answer, and with the poolers' consoles.
func (s *Stack) Observer() *topology.Observer {
	c := s.Cluster()
	return &topology.Observer{
		Path: c.Path, Store: c.Store, Console: s.pool,
		Leaders: &patroni.Source{Store: c.Store, Path: c.Path, Prober: c.Prober, Replicas: true, Client: s.Patroni()},
	}
}

// pool asks a pooler's console what it is doing.
func (s *Stack) pool(ctx context.Context, name string, _ netip.AddrPort) (pooler.State, error) {
	admin := s.AdminDSN(name)
	if admin == "" {
		return pooler.State{}, fmt.Errorf("local: %s is no pooler of this stack: its console is not known", name)
	}
	config, err := pgconn.ParseConfig(admin)
	if err != nil {
		return pooler.State{}, err
	}
	p := &pooler.Local{Config: filepath.Join(s.folder.dir, name, poolerFile), Connect: pooler.ConnectWith(config)}
	return p.State(ctx)
}

// View reads everything that is known of the stack.
func (s *Stack) View(ctx context.Context) topology.View { return s.Observer().View(ctx) }

// listen opens a loopback listener for a server in this process.
func listen() (net.Listener, netip.AddrPort, error) {
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	return l, l.Addr().(*net.TCPAddr).AddrPort(), nil
}

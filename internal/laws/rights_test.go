//go:build !race

// The race detector makes the hashing of passwords ten times as slow as it is meant to be. TestGuards runs this without.

package laws

import (
	"context"
	"fmt"
	"iter"
	"net/netip"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/embedded"
	"github.com/pgconvoy/pgconvoy/dcs/etcd"
	"github.com/pgconvoy/pgconvoy/envoyconf"
	"github.com/pgconvoy/pgconvoy/internal/leak"
	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/pooler"
	"github.com/pgconvoy/pgconvoy/topology"
)

const (
	theirs = "/service/demo"
	ours   = "/pgconvoy" + theirs

	read      = clientv3.PermissionType(clientv3.PermRead)
	readWrite = clientv3.PermissionType(clientv3.PermReadWrite)
)

// TestRightsOnEtcd: on a server that knows users, each role works with the rights that its documentation names.
func TestRightsOnEtcd(t *testing.T) {
	leak.Check(t)
	u := users(t)
	root := u.store("root")
	for key, value := range map[string]string{
		"initialize": "7", "leader": "n1", "config": `{"ttl":30}`,
		"members/n1": `{"conn_url":"postgres://10.0.0.1:5432/postgres","state":"running","role":"primary","timeline":1}`,
	} {
		if _, err := root.Put(t.Context(), theirs+"/"+key, []byte(value), dcs.Version{}); err != nil {
			t.Fatal(err)
		}
	}
	u.grant("agent", read, theirs)
	u.grant("agent", readWrite, ours, "/pgconvoy-history"+theirs)
	u.grant("plane", readWrite, ours)
	u.grant("observer", read, theirs, ours)
	before := content(t, root, theirs)

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	addr := netip.MustParseAddrPort("10.1.0.1:6432")
	agent := &topology.Agent{
		Cluster: topology.Cluster{Path: theirs, Store: u.store("agent"), Prober: writable{}},
		Name:    "pgb-1", Listen: addr, Pooler: &onePooler{},
	}
	router := make(oneRouter, 1)
	plane := &topology.ControlPlane{Cluster: topology.Cluster{Path: theirs, Store: u.store("plane")}, Name: "cp", Router: router}
	var roles sync.WaitGroup
	defer roles.Wait()
	rctx, stop := context.WithCancel(ctx)
	defer stop()
	for name, role := range map[string]interface{ Run(context.Context) error }{"agent": agent, "plane": plane} {
		roles.Go(func() {
			if err := role.Run(rctx); rctx.Err() == nil {
				t.Errorf("%s: %v", name, err)
				cancel()
			}
		})
	}

	// All of it arrives where it should: at the pooler, at the balancer, and in the view of somebody who may only read.
	select {
	case e := <-router:
		if len(e) != 1 || e[0].Addr != addr {
			t.Errorf("endpoints %v", e)
		}
	case <-ctx.Done():
		t.Error("the control plane has set no endpoints")
	}
	eyes := u.store("observer")
	for v, err := range (&topology.Observer{Path: theirs, Store: eyes}).Watch(ctx) {
		if err != nil {
			t.Errorf("the observer: %v", err)
		}
		if len(v.Members) == 1 && len(v.Poolers) == 1 && v.Poolers[0].State == topology.Routed && len(v.ControlPlanes) == 1 && v.Stale == "" {
			break
		}
	}

	// And no further.
	for user, dirs := range map[string][]string{"agent": {theirs}, "plane": {theirs}, "observer": {theirs, ours}} {
		for _, dir := range dirs {
			if _, err := u.store(user).Put(ctx, dir+"/x", nil, dcs.Version{}); err == nil {
				t.Errorf("%s may write to %s: the server does not mind rights", user, dir)
			}
		}
	}
	stop()
	roles.Wait()
	if after := content(t, root, theirs); after != before {
		t.Errorf("Patroni's keys were %s, now %s", before, after)
	}
}

func content(t *testing.T, s dcs.Reader, dir string) (text string) {
	t.Helper()
	snap, err := s.Get(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	for e := range snap.All(dir) {
		text += fmt.Sprintf("%s@%v=%s\n", e.Key, e.Version, e.Value)
	}
	return text
}

// etcdUsers is a server with rights; a user's password is their name.
type etcdUsers struct {
	t      *testing.T
	server *embedded.Server
	admin  clientv3.Auth
	known  map[string]*etcd.Store
}

func users(t *testing.T) *etcdUsers {
	t.Helper()
	s, err := embedded.Start(t.Context(), embedded.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	u := &etcdUsers{t: t, server: s, admin: s.Client(), known: map[string]*etcd.Store{}}
	u.add("root")
	if _, err := u.admin.AuthEnable(t.Context()); err != nil {
		t.Fatal(err)
	}
	u.admin = u.client("root")
	return u
}

// add makes a user with a role of the same name.
func (u *etcdUsers) add(name string) {
	u.t.Helper()
	_, err1 := u.admin.RoleAdd(u.t.Context(), name)
	_, err2 := u.admin.UserAdd(u.t.Context(), name, name)
	_, err3 := u.admin.UserGrantRole(u.t.Context(), name, name)
	for _, err := range []error{err1, err2, err3} {
		if err != nil && name != "root" { // whose role is there
			u.t.Fatal(err)
		}
	}
}

// grant gives a user, who is new or not, rights below directories.
func (u *etcdUsers) grant(name string, right clientv3.PermissionType, dirs ...string) {
	u.t.Helper()
	if list, err := u.admin.UserGet(u.t.Context(), name); err != nil || len(list.Roles) == 0 {
		u.add(name)
	}
	for _, dir := range dirs {
		prefix := dcs.Prefix(dir)
		if _, err := u.admin.RoleGrantPermission(u.t.Context(), name, prefix, clientv3.GetPrefixRangeEnd(prefix), right); err != nil {
			u.t.Fatal(err)
		}
	}
}

func (u *etcdUsers) client(name string) *clientv3.Client {
	u.t.Helper()
	c, err := clientv3.New(clientv3.Config{
		Endpoints: []string{u.server.Endpoint()}, Username: name, Password: name, DialTimeout: 30 * time.Second, Logger: zap.NewNop(),
	})
	if err != nil {
		u.t.Fatal(err)
	}
	u.t.Cleanup(func() { _ = c.Close() })
	return c
}

// store is the store as a user sees it: of one client each, for logging in is slow on purpose.
func (u *etcdUsers) store(name string) *etcd.Store {
	u.t.Helper()
	if u.known[name] == nil {
		u.known[name] = etcd.New(u.client(name))
	}
	return u.known[name]
}

// writable is a Prober to whom every server is the primary.
type writable struct{}

func (writable) Probe(ctx context.Context, _ netip.AddrPort) iter.Seq[patroni.Proof] {
	return func(yield func(patroni.Proof) bool) {
		for ctx.Err() == nil && yield(patroni.Proof{Writable: true, SystemID: "7", Timeline: 1, At: time.Now()}) {
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
}

// onePooler is a Pooler that does what it is told.
type onePooler struct {
	mu    sync.Mutex
	state pooler.State
}

func (p *onePooler) State(context.Context) (pooler.State, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state, nil
}

func (p *onePooler) Hold(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state.Held, p.state.Drained = true, true
	return nil
}

func (p *onePooler) Route(_ context.Context, to pooler.Target) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = pooler.State{Target: to}
	return nil
}

// oneRouter is a Router that hands on the newest endpoints.
type oneRouter chan []envoyconf.Endpoint

func (r oneRouter) Set(_ context.Context, _ string, e []envoyconf.Endpoint) (string, error) {
	select {
	case r <- e:
	default:
	}
	return envoyconf.Version(e), nil
}

func (oneRouter) Wait(context.Context, string, string) error { return nil }

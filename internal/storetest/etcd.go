package storetest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/pgconvoy/pgconvoy/dcs/embedded"
	"github.com/pgconvoy/pgconvoy/internal/porttest"
)

// etcdServer is a server in this process. It has no crash, only an end.
type etcdServer struct {
	config embedded.Config

	mu      sync.Mutex
	running *embedded.Server
}

// Etcd runs n etcd servers in this process and waits until they serve.
func Etcd(t testing.TB, n int) *Servers {
	t.Helper()
	s := &Servers{t: t}
	addr := func() netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(porttest.Free(t)))
	}
	peers := map[string]netip.AddrPort{}
	for i := range n {
		name := fmt.Sprintf("s%d", i+1)
		peers[name] = addr()
		s.addrs = append(s.addrs, addr())
		s.servers = append(s.servers, &etcdServer{config: embedded.Config{Name: name, Dir: t.TempDir(), Listen: s.addrs[i], NoSync: true}})
	}
	if n > 1 {
		for _, e := range s.servers {
			e.(*etcdServer).config.Peers = peers
		}
	}
	t.Cleanup(func() {
		each(n, func(i int) {
			ctx, cancel := context.WithTimeout(context.Background(), Within)
			defer cancel()
			if err := s.servers[i].down(ctx, true); err != nil {
				t.Error(err)
			}
		})
	})
	with := func(i int, f func(c *clientv3.Client) error) error {
		c, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + s.addrs[i].String()}, Logger: zap.NewNop()})
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		return f(c)
	}
	s.answers = func(ctx context.Context, i int) error {
		return with(i, func(c *clientv3.Client) error {
			_, err := c.Get(ctx, "/", clientv3.WithCountOnly())
			return err
		})
	}
	s.leader = func(ctx context.Context, i int) (leads bool, err error) {
		err = with(i, func(c *clientv3.Client) error {
			st, err := c.Status(ctx, c.Endpoints()[0])
			leads = err == nil && st.Leader == st.Header.GetMemberId()
			return err
		})
		return leads, err
	}
	s.expire = func(ctx context.Context, key string) error {
		return with(0, func(c *clientv3.Client) error { return expire(ctx, c, key) })
	}
	s.forget = func(ctx context.Context) error {
		return with(0, func(c *clientv3.Client) error { return forget(ctx, c) })
	}
	each(n, func(i int) { s.Start(t, i) })
	s.Await(t)
	return s
}

// expire ends the lease of key as the servers do when its time is over, with all its keys.
func expire(ctx context.Context, c *clientv3.Client, key string) error {
	resp, err := c.Get(ctx, key)
	if err != nil {
		return err
	}
	if len(resp.Kvs) == 0 || resp.Kvs[0].Lease == 0 {
		return fmt.Errorf("%s belongs to no lease: %v", key, resp.Kvs)
	}
	_, err = c.Revoke(ctx, clientv3.LeaseID(resp.Kvs[0].Lease))
	return err
}

// forget makes the present revision the oldest that the servers know.
func forget(ctx context.Context, c *clientv3.Client) error {
	resp, err := c.Get(ctx, "/", clientv3.WithCountOnly())
	if err != nil {
		return err
	}
	_, err = c.Compact(ctx, resp.Header.GetRevision(), clientv3.WithCompactPhysical())
	if errors.Is(err, rpctypes.ErrCompacted) {
		return nil // nothing was written since the last time
	}
	return err
}

func (e *etcdServer) up(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.running != nil {
		return nil
	}
	var err error
	e.running, err = embedded.Start(ctx, e.config)
	return err
}

func (e *etcdServer) down(context.Context, bool) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.running == nil {
		return nil
	}
	err := e.running.Close()
	e.running = nil
	return err
}

func (e *etcdServer) name() string { return e.config.Name }

func (e *etcdServer) data() string { return e.config.Dir }

package storetest

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/pgconvoy/pgconvoy/dcs/embedded"
	"github.com/pgconvoy/pgconvoy/internal/porttest"
)

// etcd is a server in this process. It has no crash, only an end.
type etcd struct {
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
		s.servers = append(s.servers, &etcd{config: embedded.Config{Name: name, Dir: t.TempDir(), Listen: s.addrs[i], NoSync: true}})
	}
	if n > 1 {
		for _, e := range s.servers {
			e.(*etcd).config.Peers = peers
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
	client := func(i int) (*clientv3.Client, error) {
		return clientv3.New(clientv3.Config{Endpoints: []string{"http://" + s.addrs[i].String()}, Logger: zap.NewNop()})
	}
	s.answers = func(ctx context.Context, i int) error {
		c, err := client(i)
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		_, err = c.Get(ctx, "/", clientv3.WithCountOnly())
		return err
	}
	s.leader = func(ctx context.Context, i int) (bool, error) {
		c, err := client(i)
		if err != nil {
			return false, err
		}
		defer func() { _ = c.Close() }()
		st, err := c.Status(ctx, c.Endpoints()[0])
		return err == nil && st.Leader == st.Header.GetMemberId(), err
	}
	each(n, func(i int) { s.Start(t, i) })
	s.Await(t)
	return s
}

func (e *etcd) up(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.running != nil {
		return nil
	}
	var err error
	e.running, err = embedded.Start(ctx, e.config)
	return err
}

func (e *etcd) down(context.Context, bool) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.running == nil {
		return nil
	}
	err := e.running.Close()
	e.running = nil
	return err
}

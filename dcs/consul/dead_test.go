package consul_test

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/storetest"
)

// Connections die without a word, as behind a firewall that forgot them. New ones work.
func watchLeavesDeadConnections(t *testing.T, s *storetest.Servers) {
	var m morgue
	store := connect(t, s.Addrs()[0], func(c *api.Config) {
		c.Transport.DialContext, c.Transport.IdleConnTimeout = m.dial, time.Minute
	})
	store.Reconfirm = 2 * time.Second
	store.Timeout = time.Minute // not what ends the wait
	v := storetest.Put(t, store, "k", "1", dcs.Version{})
	f := storetest.Follow(t, store)
	f.Until("fresh", storetest.Fresh("k=1"))
	v = storetest.Put(t, store, "k", "2", v)
	f.Until("following", storetest.Fresh("k=2"))
	for i := range 2 {
		m.kill()
		value := string(rune('a' + i))
		v = storetest.Put(t, connect(t, s.Addrs()[0]), "k", value, v)
		f.Until("following over new connections", storetest.Fresh("k="+value))
	}
}

// morgue makes connections that can die silently: what is written is lost, and nothing is read any more.
type morgue struct {
	mu    sync.Mutex
	conns []*mortal
}

type mortal struct {
	net.Conn
	dead   atomic.Bool
	closed chan struct{}
	once   sync.Once
}

func (m *morgue) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	mc := &mortal{Conn: c, closed: make(chan struct{})}
	m.conns = append(m.conns, mc)
	return mc, nil
}

func (m *morgue) kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.conns {
		c.dead.Store(true)
	}
}

func (c *mortal) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if !c.dead.Load() {
			return n, err
		}
		if err != nil { // also that the peer gave up does not get through
			<-c.closed
			return 0, net.ErrClosed
		}
	}
}

func (c *mortal) Write(p []byte) (int, error) {
	if c.dead.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *mortal) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/hashicorp/consul/api"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/consul"
	"github.com/pgconvoy/pgconvoy/dcs/etcd"
	"github.com/pgconvoy/pgconvoy/dcs/zookeeper"
)

func connectEtcd(endpoints []string) (*connection, error) {
	client, err := clientv3.New(clientv3.Config{
		Endpoints: endpoints, Logger: zap.NewNop(),
		DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 3 * time.Second,
	})
	if err != nil {
		return nil, fmt.Errorf("local: etcd at %s: %w", strings.Join(endpoints, ","), err)
	}
	remove := func(ctx context.Context, dir string) error {
		_, err := client.Delete(ctx, dcs.Prefix(dir), clientv3.WithPrefix())
		return err
	}
	return &connection{etcd.New(client), remove, client.Close}, nil
}

func connectConsul(hosts []string) (*connection, error) {
	servers := newServers(hosts)
	client, err := api.NewClient(&api.Config{Address: hosts[0], Scheme: "http", HttpClient: &http.Client{Transport: servers}})
	if err != nil {
		return nil, fmt.Errorf("local: Consul at %s: %w", strings.Join(hosts, ","), err)
	}
	remove := func(ctx context.Context, dir string) error {
		_, err := client.KV().DeleteTree(strings.TrimPrefix(dcs.Prefix(dir), "/"), (&api.WriteOptions{}).WithContext(ctx))
		return err
	}
	idle := func() error {
		servers.transport.CloseIdleConnections()
		return nil
	}
	return &connection{consul.New(client), remove, idle}, nil
}

// servers carries HTTP requests to one of several servers that are as good as each other, until that one fails: then to
// the next. Consul's own client knows one address, that of an agent beside it.
type servers struct {
	hosts     []string
	transport *http.Transport
	at        atomic.Int64 // the index of the host in use
}

func newServers(hosts []string) *servers {
	s := &servers{hosts: hosts}
	s.transport = &http.Transport{DialContext: s.dial}
	return s
}

// RoundTrip implements [http.RoundTripper]. It never sends a request twice, since what got no answer may have been
// carried out: only the next request goes elsewhere.
func (s *servers) RoundTrip(r *http.Request) (*http.Response, error) {
	at := s.at.Load()
	r = r.Clone(r.Context())
	r.URL.Host, r.Host = s.hosts[at], s.hosts[at]
	resp, err := s.transport.RoundTrip(r)
	if err != nil && !errors.Is(r.Context().Err(), context.Canceled) { // taken back by the caller it says nothing of the server
		s.moveOn(at, (at+1)%int64(len(s.hosts)))
	}
	return resp, err
}

// moveOn does nothing if another request has moved on meanwhile.
func (s *servers) moveOn(from, to int64) {
	if s.at.CompareAndSwap(from, to) {
		s.transport.CloseIdleConnections()
	}
}

// dial takes the next host at once for one that refuses: nothing has been sent yet.
func (s *servers) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	at, n := s.at.Load(), int64(len(s.hosts))
	var errs []error
	for i := range n {
		to := (at + i) % n
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, network, s.hosts[to])
		if err == nil {
			s.moveOn(at, to)
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// session is how long ZooKeeper keeps what a process has that has died: as long as leases last elsewhere.
const session = 10 * time.Second

// silent is a logger of ZooKeeper's client.
type silent struct{}

func (silent) Printf(string, ...any) {}

func connectZooKeeper(hosts []string) (*connection, error) {
	conn, _, err := zk.Connect(hosts, session, zk.WithDialer(zookeeper.Dialer(session, nil)), zk.WithLogInfo(false), zk.WithLogger(silent{}))
	if err != nil {
		return nil, fmt.Errorf("local: ZooKeeper at %s: %w", strings.Join(hosts, ","), err)
	}
	store := zookeeper.New(conn)
	store.TTL = session
	remove := func(ctx context.Context, dir string) error {
		removed := make(chan error, 1) // by a call that knows no context; it ends with the connection
		go func() { removed <- removeNodes(conn, dir) }()
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-removed:
			return err
		}
	}
	closed := func() error {
		conn.Close()
		return nil
	}
	return &connection{store, remove, closed}, nil
}

// removeNodes removes a node with all below it.
func removeNodes(conn *zk.Conn, path string) error {
	children, _, err := conn.Children(path)
	if err == nil {
		for _, c := range children {
			if err := removeNodes(conn, path+"/"+c); err != nil {
				return err
			}
		}
		err = conn.Delete(path, -1)
	}
	if errors.Is(err, zk.ErrNoNode) {
		return nil
	}
	return err
}

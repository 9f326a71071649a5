package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
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

func connectEtcd(hosts []string) (*connection, error) {
	client, err := clientv3.New(clientv3.Config{
		Endpoints: DCS{}.at(hosts).Endpoints, Logger: zap.NewNop(),
		DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 3 * time.Second,
	})
	if err != nil {
		return nil, fmt.Errorf("local: etcd at %s: %w", strings.Join(hosts, ","), err)
	}
	remove := func(ctx context.Context, dir string) error {
		_, err := client.Delete(ctx, dcs.Prefix(dir), clientv3.WithPrefix())
		return err
	}
	return &connection{etcd.New(client), remove, client.Close}, nil
}

// connectConsul makes a client that asks the first of the servers that accepts its connection: Consul's own client knows
// one address, that of an agent beside it.
func connectConsul(hosts []string) (*connection, error) {
	transport := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (conn net.Conn, err error) {
		var errs []error
		for _, h := range hosts {
			if conn, err = (&net.Dialer{Timeout: time.Second}).DialContext(ctx, network, h); err == nil {
				return conn, nil
			}
			errs = append(errs, err)
		}
		return nil, errors.Join(errs...)
	}}
	client, err := api.NewClient(&api.Config{Address: hosts[0], Scheme: "http", Transport: transport})
	if err != nil {
		return nil, fmt.Errorf("local: Consul at %s: %w", strings.Join(hosts, ","), err)
	}
	remove := func(ctx context.Context, dir string) error {
		_, err := client.KV().DeleteTree(strings.TrimPrefix(dcs.Prefix(dir), "/"), (&api.WriteOptions{}).WithContext(ctx))
		return err
	}
	idle := func() error {
		transport.CloseIdleConnections()
		return nil
	}
	return &connection{consul.New(client), remove, idle}, nil
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

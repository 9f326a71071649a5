package storetest

import (
	"net/http"
	"testing"
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

// kind is a store in short words: how to run n servers, and how to connect to them, with a TTL that suits.
type kind struct {
	start   func(t testing.TB, n int) *Servers
	connect func(addrs []string) (s dcs.Store, closed func(), err error)
}

var kinds = map[string]kind{
	"etcd":      {Etcd, connectEtcd},
	"consul":    {func(t testing.TB, n int) *Servers { return Consul(t, n, nil) }, connectConsul},
	"zookeeper": {func(t testing.TB, n int) *Servers { return ZooKeeper(t, n, nil) }, connectZooKeeper},
}

func connectEtcd(addrs []string) (dcs.Store, func(), error) {
	client, err := clientv3.New(clientv3.Config{Endpoints: addrs, Logger: zap.NewNop()})
	if err != nil {
		return nil, nil, err
	}
	s := etcd.New(client)
	s.TTL = 2 * time.Second
	return s, func() { _ = client.Close() }, nil
}

func connectConsul(addrs []string) (dcs.Store, func(), error) {
	transport := &http.Transport{}
	client, err := api.NewClient(&api.Config{Address: addrs[0], Transport: transport})
	if err != nil {
		return nil, nil, err
	}
	return consul.New(client), transport.CloseIdleConnections, nil
}

func connectZooKeeper(addrs []string) (dcs.Store, func(), error) {
	const ttl = 2 * time.Second
	conn, _, err := zk.Connect(addrs, ttl, zk.WithDialer(zookeeper.Dialer(ttl, nil)), zk.WithLogInfo(false), zk.WithLogger(silent{}))
	if err != nil {
		return nil, nil, err
	}
	s := zookeeper.New(conn)
	s.TTL = ttl
	return s, conn.Close, nil
}

// silent is a log that nobody reads.
type silent struct{}

func (silent) Printf(string, ...any) {}

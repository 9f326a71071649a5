package embedded_test

import (
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/dcstest"
	"github.com/pgconvoy/pgconvoy/dcs/etcd"
	"github.com/pgconvoy/pgconvoy/internal/leak"
	"github.com/pgconvoy/pgconvoy/internal/storetest"
)

// The server of this package, one node, with every fault.
func TestContract(t *testing.T) {
	leak.Check(t)
	servers := storetest.Etcd(t, 1)
	dcstest.TestStore(t, func(t *testing.T) (dcs.Store, dcstest.Faults) {
		paths := servers.Paths(t)
		client, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + paths.Addrs()[0].String()}, Logger: zap.NewNop()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = client.Close() })
		store := etcd.New(client)
		store.TTL, store.Timeout, store.Reconfirm = 5*time.Second, 3*time.Second, time.Second
		return store, servers.Faults(paths)
	})
}

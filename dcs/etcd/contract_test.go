package etcd_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/dcstest"
	"github.com/pgconvoy/pgconvoy/dcs/embedded"
	"github.com/pgconvoy/pgconvoy/dcs/etcd"
	"github.com/pgconvoy/pgconvoy/internal/leak"
	"github.com/pgconvoy/pgconvoy/internal/storetest"
)

// Three servers, with every fault. (One server has them in the tests of package embedded.)
func TestContract(t *testing.T) {
	leak.Check(t)
	servers := storetest.Etcd(t, 3)
	dcstest.TestStore(t, func(t *testing.T) (dcs.Store, dcstest.Faults) {
		paths := servers.Paths(t)
		store := etcd.New(client(t, paths.Addrs(), alive))
		store.TTL, store.Timeout, store.Reconfirm = 5*time.Second, 3*time.Second, time.Second
		return store, servers.Faults(paths)
	})
}

// alive is what the package says of the client's configuration.
func alive(c *clientv3.Config) {
	c.DialKeepAliveTime, c.DialKeepAliveTimeout = 5*time.Second, 2*time.Second
}

// Events alone keep the contract: no confirmation comes to their help.
func TestContractByEvents(t *testing.T) { contract(t, time.Hour) }

// Confirmations under way at every moment do not undo what events brought.
func TestContractWithConfirmations(t *testing.T) { contract(t, time.Microsecond) }

// contract is all of it that needs no fault.
func contract(t *testing.T, reconfirm time.Duration) {
	leak.Check(t)
	s := start(t, embedded.Config{})
	dcstest.TestStore(t, func(t *testing.T) (dcs.Store, dcstest.Faults) {
		store := connect(t, []netip.AddrPort{address(s)})
		if store.Reconfirm = reconfirm; strings.HasSuffix(t.Name(), "/WatchIsReconfirmed") {
			store.Reconfirm = time.Second // what that case is about
		}
		return store, dcstest.Faults{}
	})
}

package zookeeper_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/dcstest"
	"github.com/pgconvoy/pgconvoy/internal/leak"
	"github.com/pgconvoy/pgconvoy/internal/storetest"
)

// One server, and three, with every fault.
func TestContract(t *testing.T) {
	for _, n := range []int{1, 3} {
		t.Run(fmt.Sprintf("servers=%d", n), func(t *testing.T) {
			leak.Check(t)
			servers := storetest.ZooKeeper(t, n, nil)
			operator := dial(t, 30*time.Second, servers.Addrs()...)
			dcstest.TestStore(t, func(t *testing.T) (dcs.Store, dcstest.Faults) {
				paths := servers.Paths(t)
				conn := dial(t, contractTTL, paths.Addrs()...)
				awaitSession(t, conn)
				s := store(conn)
				s.TTL, s.Reconfirm = contractTTL, time.Second
				faults := servers.Faults(paths)
				// A server that is behind what a client has seen refuses that client.
				faults.Backup = nil
				// There is no other way to end a session than to have its client keep silent.
				faults.Expire = func(t *testing.T, key string) { expire(t, operator, paths, key) }
				return s, faults
			})
		})
	}
}

// The servers' restart must fit into half of it.
const contractTTL = 15 * time.Second

// expire stops a client until the servers have ended the session that key belongs to.
func expire(t testing.TB, operator *zk.Conn, paths storetest.Paths, key string) {
	t.Helper()
	defer paths.Halt()()
	await(t, "without "+key, func() bool {
		found, _, err := operator.Exists(key)
		return err == nil && !found
	})
}

// Events alone keep the contract: no confirmation comes to their help.
func TestContractByEvents(t *testing.T) { contract(t, time.Hour) }

// Confirmations under way at every moment do not undo what events brought.
func TestContractWithConfirmations(t *testing.T) { contract(t, time.Microsecond) }

// contract is all of it that needs no fault, over one connection.
func contract(t *testing.T, reconfirm time.Duration) {
	leak.Check(t)
	servers := storetest.ZooKeeper(t, 1, nil)
	conn := dial(t, contractTTL, servers.Addrs()...)
	awaitSession(t, conn)
	s := store(conn)
	s.Reconfirm = reconfirm
	dcstest.TestStore(t, func(*testing.T) (dcs.Store, dcstest.Faults) { return s, dcstest.Faults{} })
}

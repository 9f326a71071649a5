package consul_test

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/consul"
	"github.com/pgconvoy/pgconvoy/dcs/dcstest"
	"github.com/pgconvoy/pgconvoy/internal/leak"
	"github.com/pgconvoy/pgconvoy/internal/storetest"
)

// One server, and confirmations that come rarely to the help of blocking queries.
func TestContract(t *testing.T) {
	contract(t, 1, time.Second)
}

// Three servers, and confirmations at every moment.
func TestContractOfThree(t *testing.T) {
	contract(t, 3, 50*time.Millisecond)
}

func contract(t *testing.T, servers int, reconfirm time.Duration) {
	leak.Check(t)
	s := storetest.Consul(t, servers, nil)
	dcstest.TestStore(t, func(t *testing.T) (dcs.Store, dcstest.Faults) {
		p := s.Paths(t)[:1] // a client has one agent
		store := connect(t, p.Addrs()[0])
		store.Reconfirm = reconfirm
		if strings.HasSuffix(t.Name(), "/LeaseSurvivesARestart") {
			store.TTL = 20 * time.Second // a server that hangs in its stop is given some seconds
		}
		faults := s.Faults(p)
		if servers == 1 {
			faults.LoseQuorum = nil // it is what KillLeader does
		}
		faults.Expire = func(t *testing.T, key string) { t.Helper(); expire(t, s, key) }
		return store, faults
	})
}

// expire has the servers end the session that owns a key.
func expire(t *testing.T, s *storetest.Servers, key string) {
	t.Helper()
	c := client(t, s.Addrs()[0])
	pair, _, err := c.KV().Get(key[1:], nil)
	if err != nil || pair == nil || pair.Session == "" {
		t.Fatalf("no session owns %s: %v, %v", key, pair, err)
	}
	if _, err := c.Session().Destroy(pair.Session, nil); err != nil {
		t.Fatal(err)
	}
}

// client is a client of an agent, which leaves nothing behind.
func client(t testing.TB, agent netip.AddrPort, change ...func(*api.Config)) *api.Client {
	t.Helper()
	// Connections that are not in use go soon: what remains is in use.
	config := api.Config{Address: agent.String(), Transport: &http.Transport{MaxIdleConnsPerHost: 10, IdleConnTimeout: 100 * time.Millisecond}}
	for _, f := range change {
		f(&config)
	}
	c, err := api.NewClient(&config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(config.Transport.CloseIdleConnections)
	return c
}

// connect returns a store over a client of its own.
func connect(t testing.TB, agent netip.AddrPort, change ...func(*api.Config)) *consul.Store {
	t.Helper()
	return consul.New(client(t, agent, change...))
}

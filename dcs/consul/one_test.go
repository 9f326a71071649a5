package consul_test

import (
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/pgconvoy/pgconvoy/internal/leak"
	"github.com/pgconvoy/pgconvoy/internal/storetest"
)

// What Consul does is shown by one server, each time from an empty directory.
func TestOneServer(t *testing.T) {
	leak.Check(t)
	s := storetest.Consul(t, 1, nil)
	alone(t, s, client(t, s.Addrs()[0]), map[string]func(*testing.T, *storetest.Servers){
		"QuietInABusyStore":    quietInABusyStore,
		"ProxyWithoutAnIndex":  proxyWithoutAnIndex,
		"Restart":              restart,
		"WatchNoticesSilence":  watchNoticesSilence,
		"WatchLeavesTheDead":   watchLeavesDeadConnections,
		"StoreIsReplaced":      watchOfAStoreThatWasReplaced,
		"WatchIsLeft":          watchLeftAtAnyMoment,
		"WatchEndsItsRequests": watchEndsItsRequests,
		"ImpatientClient":      impatientClient,
		"WriteWithoutAnAnswer": writeWithoutAnAnswer,
		"WriteIsSentOnce":      writeIsSentOnce,
		"LargeValues":          largeValues,
		"LargeValueOfALease":   largeValueOfALease,
		"SessionOfALease":      sessionOfALease,
		"LockDelay":            lockDelay,
		"Takeover":             takeover,
		"SessionEnded":         sessionThatConsulEnded,
	})
}

// alone runs each test with the directory empty. c has all rights.
func alone(t *testing.T, s *storetest.Servers, c *api.Client, tests map[string]func(*testing.T, *storetest.Servers)) {
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := c.KV().DeleteTree(dir[1:]+"/", nil); err != nil {
				t.Fatal(err)
			}
			leak.Check(t, "pgconvoy/dcs/") // a server that is started again is of another goroutine
			test(t, s)
		})
	}
}

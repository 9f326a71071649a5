// Package porttest finds ports for the servers that tests start.
package porttest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// Free returns a port that is free on each of hosts (none: 127.0.0.1), and that no other test on this machine is given
// before t ends: also not while its server is down.
//
// It is outside the range from which the kernel takes ports by itself (32768 to 60999 on Linux): one of those may be
// any connection's or listener's before the server has it. Stacks and their links take theirs from below that range.
func Free(t testing.TB, hosts ...string) int {
	t.Helper()
	if len(hosts) == 0 {
		hosts = []string{"127.0.0.1"}
	}
	for range 1000 {
		port := 61000 + rand.IntN(4500)
		// An abstract Unix socket is what the test processes can see of each other: it ends with its process.
		claim, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", fmt.Sprintf("@pgconvoy-test-port-%d", port))
		if err != nil {
			continue
		}
		if !free(t, port, hosts) {
			_ = claim.Close()
			continue
		}
		t.Cleanup(func() { _ = claim.Close() })
		return port
	}
	t.Fatal("no free port")
	return 0
}

func free(t testing.TB, port int, hosts []string) bool {
	for _, host := range hosts {
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err != nil {
			return false
		}
		_ = l.Close()
	}
	return true
}

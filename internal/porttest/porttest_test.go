package porttest_test

import (
	"net"
	"strconv"
	"testing"

	"github.com/pgconvoy/pgconvoy/internal/porttest"
)

func TestEachPortIsGivenOnce(t *testing.T) {
	given := map[int]bool{}
	for range 200 {
		port := porttest.Free(t)
		if given[port] {
			t.Errorf("%d was given twice", port)
		}
		given[port] = true
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			t.Fatalf("%d is not free: %v", port, err)
		}
		_ = l.Close()
	}
}

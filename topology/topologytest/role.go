package topologytest

import (
	"context"
	"fmt"
	"os"

	"github.com/pgconvoy/pgconvoy/topology/local"
)

// A stack starts this program again for each agent, control plane and etcd server. Such a process must become its role
// before a line of the user's tests runs: there is no other place for that than here.
func init() { //nolint:gochecknoinits // see above
	ran, err := local.RunRole(context.Background())
	if !ran {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

package etcd_test

import (
	"testing"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/dcstest"
	"github.com/pgconvoy/pgconvoy/dcs/embedded"
)

func TestContract(t *testing.T) {
	s := start(t, embedded.Config{})
	dcstest.TestStore(t, func(*testing.T) dcs.Store { return s.Store() })
}

// start runs a server for the rest of the test.
func start(t testing.TB, c embedded.Config) *embedded.Server {
	t.Helper()
	s, err := embedded.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

package etcd_test

import (
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/dcstest"
	"github.com/pgconvoy/pgconvoy/dcs/embedded"
)

// Events alone keep the contract: no confirmation comes to their help.
func TestContractByEvents(t *testing.T) {
	s := start(t, embedded.Config{})
	s.Store().Reconfirm = time.Hour
	dcstest.TestStore(t, func(*testing.T) dcs.Store { return s.Store() })
}

// Confirmations under way at every moment do not undo what events brought.
func TestContractWithConfirmations(t *testing.T) {
	s := start(t, embedded.Config{})
	s.Store().Reconfirm = time.Microsecond
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

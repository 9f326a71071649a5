package memory_test

import (
	"errors"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/dcstest"
	"github.com/pgconvoy/pgconvoy/dcs/memory"
)

func TestContract(t *testing.T) {
	s := &memory.Store{TTL: 3 * time.Second, Reconfirm: 500 * time.Millisecond, Timeout: time.Second}
	down := func(*testing.T) func() {
		s.SetDown(errors.New("no quorum"))
		return func() { s.SetDown(nil) }
	}
	dcstest.TestStore(t, func(*testing.T) (dcs.Store, dcstest.Faults) {
		c := s.Client()
		return c, dcstest.Faults{
			Cut:        func(*testing.T) func() { return c.Cut() },
			Mute:       func(*testing.T) func() { return c.Mute() },
			Halt:       func(*testing.T) func() { return c.Halt() },
			Expire:     func(_ *testing.T, key string) { s.Expire(key) },
			Restart:    func(t *testing.T) { down(t)() },
			KillLeader: down,
			LoseQuorum: down,
			Backup:     func(*testing.T) func() { return s.Backup() },
		}
	})
}

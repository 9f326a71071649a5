package dcstest

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/memory"
)

// Every case holds for the twin in a bubble, where time passes only when everybody waits: exact to the nanosecond, and
// over in no time.
func TestCasesInABubble(t *testing.T) {
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				open, faults := twin(&memory.Store{TTL: time.Minute, Reconfirm: 20 * time.Second, Timeout: 7 * time.Second})
				if missing := faults.lacks(c.needs); len(missing) > 0 {
					return // the twin forgets nothing
				}
				begin := time.Now()
				c.test(t, open, 15*time.Minute)
				t.Logf("%v", time.Since(begin))
			})
		})
	}
}

// twin opens clients of s. The faults are those of one that is thrown away.
func twin(s *memory.Store) (open func(*testing.T) (dcs.Store, Faults), faults Faults) {
	down := func(*testing.T) func() {
		s.SetDown(errors.New("no quorum"))
		return func() { s.SetDown(nil) }
	}
	open = func(*testing.T) (dcs.Store, Faults) {
		c := s.Client()
		return present(c), Faults{
			Cut:        func(*testing.T) func() { return c.Cut() },
			Mute:       func(*testing.T) func() { return c.Mute() },
			Halt:       func(*testing.T) func() { return c.Halt() },
			Expire:     func(_ *testing.T, key string) { s.Expire(key) },
			Restart:    func(t *testing.T) { down(t)() },
			KillLeader: down,
			LoseQuorum: down,
			Backup:     func(*testing.T) func() { return s.Backup() },
		}
	}
	_, faults = open(nil)
	return open, faults
}

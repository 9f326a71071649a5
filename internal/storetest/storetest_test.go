package storetest

import (
	"testing"
	"time"
)

// Each kind of server goes and comes back, one and several, with nothing left behind.
func TestServersComeAndGo(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, n := range []int{1, 3} {
				begin := time.Now()
				took := func(what string) {
					t.Logf("%d: %s after %v", n, what, time.Since(begin).Round(time.Millisecond))
					begin = time.Now()
				}
				s := kind.start(t, n)
				took("up")
				s.KillLeader(t)()
				took("leader killed and back")
				s.LoseMajority(t)()
				took("majority lost and back")
				s.Restart(t)
				took("restarted")
				s.Backup(t)()
				took("backed up and restored")
			}
		})
	}
}

package topologytest

import "testing"

// End stops the shared stack before its package's tests have ended.
func (s *Shared) End(t testing.TB) {
	t.Helper()
	s.turn.Lock()
	defer s.turn.Unlock()
	s.end(t)
}

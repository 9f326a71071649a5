package patroni_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/patroni"
)

// at gives an answer a position in the WAL.
func at(lsn uint64, p patroni.Proof) patroni.Proof {
	p.LSN = lsn
	return p
}

// reads is a scene of a read service whose replica n2 may be two seconds behind.
func reads(t *testing.T, play func(s *scene)) {
	t.Helper()
	stage(t, func(s *scene) {
		s.source.Replicas, s.source.MaxLag = true, 2*time.Second
		s.ask.set(n1, at(1000, primary(3)))
		s.ask.set(n2, at(1000, replica(3)))
		play(s)
	})
}

// fresh wants the first replica to be so, or not, when time has passed.
func (s *scene) fresh(d time.Duration, want bool) patroni.Replica {
	s.Helper()
	time.Sleep(d)
	r := s.now().Replicas[0]
	if r.Fresh != want {
		s.Errorf("after %v: %s fresh is %v, %v behind", d, r.Member, r.Fresh, r.Lag)
	}
	return r
}

func TestAReplicaThatLags(t *testing.T) {
	reads(t, func(s *scene) {
		defer s.watch()()
		if r := s.fresh(time.Second, true); r.Lag != 0 || r.Proof.LSN != 1000 {
			t.Errorf("%+v", r)
		}
		s.ask.set(n1, at(2000, primary(3)))
		if r := s.fresh(1900*time.Millisecond, true); r.Lag < 1500*time.Millisecond || r.Lag > 2200*time.Millisecond {
			t.Errorf("%v behind after 1.9 s", r.Lag)
		}
		if r := s.fresh(400*time.Millisecond, false); r.Lag < 2*time.Second {
			t.Errorf("%v behind after 2.3 s", r.Lag)
		}
		s.ask.set(n2, at(1999, replica(3)))
		s.fresh(2*time.Millisecond, false)
		s.ask.set(n2, at(2000, replica(3)))
		if r := s.fresh(2*time.Millisecond, true); r.Lag != 0 {
			t.Errorf("%v behind", r.Lag)
		}
	})
}

// A replica at the bound does not come and go: once late it has to catch up well.
func TestAReplicaAtTheBound(t *testing.T) {
	reads(t, func(s *scene) {
		defer s.watch()()
		s.after(time.Second, patroni.Writable)
		start := time.Now()
		behind := func(d time.Duration) uint64 { return uint64(time.Minute + time.Since(start) - d) }
		play := func(lag, span time.Duration) {
			for end := time.Now().Add(span); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
				s.ask.set(n1, at(behind(0), primary(3)))
				s.ask.set(n2, at(behind(lag), replica(3)))
			}
		}
		play(1800*time.Millisecond, 5*time.Second)
		s.fresh(0, true) // never late
		play(2500*time.Millisecond, time.Second)
		s.fresh(0, false)
		play(1800*time.Millisecond, 5*time.Second)
		s.fresh(0, false)
		play(1200*time.Millisecond, 5*time.Second)
		s.fresh(0, false)
		play(800*time.Millisecond, time.Second)
		s.fresh(0, true)
		play(1800*time.Millisecond, 5*time.Second)
		s.fresh(0, true)
	})
}

// A primary that always writes has replicas that are always a little behind.
func TestAReplicaThatKeepsUp(t *testing.T) {
	for _, c := range []struct {
		behind time.Duration
		fresh  bool
	}{{0, true}, {500 * time.Millisecond, true}, {1500 * time.Millisecond, true}, {3 * time.Second, false}} {
		t.Run(c.behind.String(), func(t *testing.T) {
			reads(t, func(s *scene) {
				defer s.watch()()
				s.after(time.Second, patroni.Writable)
				start := time.Now()
				for d := time.Duration(0); d < 10*time.Second; d = time.Since(start) {
					s.ask.set(n1, at(uint64(10*time.Second+d), primary(3)))
					s.ask.set(n2, at(uint64(10*time.Second+d-c.behind), replica(3)))
					time.Sleep(50 * time.Millisecond)
					if d > 4*time.Second {
						if r := s.fresh(0, c.fresh); r.Lag > c.behind+100*time.Millisecond {
							t.Errorf("%v behind, by its word %v", c.behind, r.Lag)
						}
					}
				}
				if n := len(s.levels()); n > 4*11+10 {
					t.Errorf("%d levels in 11 s: a position that moves is no news", n)
				}
			})
		})
	}
}

func TestALagOfAPrimaryThatIsLost(t *testing.T) {
	reads(t, func(s *scene) {
		defer s.watch()()
		s.after(time.Second, patroni.Writable)
		s.ask.set(n1, at(2000, primary(3)))
		time.Sleep(time.Second)
		s.ask.set(n1, lost())
		s.fresh(time.Minute, true) // it misses nothing that is older than allowed when the primary was last heard
		s.ask.set(n1, at(2000, primary(3)))
		s.fresh(2*time.Millisecond, false)
		s.ask.set(n1, lost())
		s.fresh(time.Minute, false) // and its last answers go on counting
		s.ask.set(n2, at(2000, replica(3)))
		s.fresh(2*time.Millisecond, true)
	})
}

func TestALagThatNobodyMeasures(t *testing.T) {
	reads(t, func(s *scene) {
		s.ask.set(n2, replica(3)) // no position
		defer s.watch()()
		s.after(time.Second, patroni.Writable)
		s.ask.set(n1, at(2000, primary(3)))
		s.fresh(time.Minute, true)
		s.ask.set(n2, at(1, replica(3)))
		s.fresh(2*time.Millisecond, false)
	})
	reads(t, func(s *scene) {
		s.source.MaxLag = -1
		defer s.watch()()
		s.after(time.Second, patroni.Writable)
		s.ask.set(n1, at(2000, primary(3)))
		if r := s.fresh(5*time.Second, true); r.Lag < 4*time.Second {
			t.Errorf("%v behind after 5 s", r.Lag)
		}
		s.fresh(time.Minute, true)
	})
	reads(t, func(s *scene) {
		s.source.MaxLag = 0 // 10 s
		defer s.watch()()
		s.after(time.Second, patroni.Writable)
		s.ask.set(n1, at(2000, primary(3)))
		s.fresh(9900*time.Millisecond, true)
		s.fresh(500*time.Millisecond, false)
	})
}

// Positions of two timelines do not compare.
func TestALagAfterAFailover(t *testing.T) {
	reads(t, func(s *scene) {
		s.member("n3", n3)
		s.ask.set(n3, at(900, replica(3)))
		defer s.watch()()
		s.after(time.Second, patroni.Writable)
		s.ask.set(n1, at(9000, primary(3))) // nobody has seen this
		time.Sleep(5 * time.Second)
		s.ask.set(n1, lost())
		s.ask.set(n2, at(1100, primary(4)))
		s.ask.set(n3, at(1050, replica(4)))
		s.remove("leader")
		s.put("leader", "n2")
		s.after(10*time.Millisecond, patroni.Writable)
		replica3 := func() patroni.Replica {
			for _, r := range s.now().Replicas {
				if r.Member == "n3" {
					return r
				}
			}
			return patroni.Replica{}
		}
		if r := replica3(); r.Fresh { // not what the new primary had when it was first asked
			t.Errorf("%+v", r)
		}
		s.ask.set(n3, at(1100, replica(4)))
		time.Sleep(2 * time.Millisecond)
		if r := replica3(); !r.Fresh || r.Lag != 0 {
			t.Errorf("%+v", r)
		}
	})
}

// A server that crashed without what it had not flushed writes on from an earlier position.
func TestALagAfterACrash(t *testing.T) {
	reads(t, func(s *scene) {
		defer s.watch()()
		s.after(time.Second, patroni.Writable)
		s.ask.set(n1, at(2000, primary(3)))
		time.Sleep(5 * time.Second)
		s.fresh(0, false)
		s.ask.set(n1, lost())
		s.ask.set(n1, at(1000, primary(3)))
		s.fresh(10*time.Millisecond, true)
	})
}

// Whatever the primary does, the verdict is that of somebody who remembers everything, up to what is thinned out.
func TestALagIsRememberedWell(t *testing.T) {
	const span = 2 * time.Second
	for seed := range uint64(20) {
		reads(t, func(s *scene) {
			defer s.watch()()
			s.after(time.Second, patroni.Writable)
			rnd := rand.New(rand.NewPCG(seed, 1))
			type sample struct {
				at  time.Time
				lsn uint64
			}
			all := []sample{{time.Now(), 1000}}
			theirs, ours := uint64(1000), uint64(1000)
			fresh, still := true, true // at the last look, and its position is that of then
			for range 200 {
				time.Sleep(time.Duration(rnd.IntN(100)+5) * time.Millisecond)
				if rnd.IntN(3) > 0 {
					ours += rnd.Uint64N(1000)
				}
				s.ask.set(n1, at(ours, primary(3)))
				if still = rnd.IntN(15) > 0; !still {
					theirs = min(ours, theirs+rnd.Uint64N(20000))
					s.ask.set(n2, at(theirs, replica(3)))
				}
				time.Sleep(2 * time.Millisecond)
				now := time.Now()
				all = append(all, sample{now, ours})
				must, may := all[0].lsn, all[0].lsn // replayed for sure, and perhaps
				again, mayAgain := must, may        // the same for one that was late
				for _, a := range all {
					if now.Sub(a.at) >= span+span/32 {
						must = a.lsn
					}
					if now.Sub(a.at) >= span-5*time.Millisecond {
						may = a.lsn
					}
					if now.Sub(a.at) >= span/2+span/16 {
						again = a.lsn
					}
					if now.Sub(a.at) >= span/2-span/16 {
						mayAgain = a.lsn
					}
				}
				r := s.now().Replicas[0]
				if !fresh {
					must = again
				}
				if !fresh || !still {
					may = mayAgain
				}
				fresh = r.Fresh
				if r.Fresh && theirs < must || !r.Fresh && theirs >= may {
					t.Fatalf("seed %d: fresh is %v at %d, %v behind; must have %d and perhaps %d", seed, r.Fresh, theirs, r.Lag, must, may)
				}
			}
		})
	}
}

package topologytest_test

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/topology/topologytest"
)

// TestChaos: whatever happens, one thing after the other, nothing is lost and nobody is served by two primaries. The long
// form has other seeds each time, and prints them; CHAOS_SEEDS gives them, CHAOS_TIME is how long each of them lasts.
func TestChaos(t *testing.T) {
	stores, seeds, d := []string{"etcd"}, []uint64{17}, 15*time.Second
	if long() {
		stores, seeds, d = storesToTry(t), seedsToTry(t), timeToTry(t)
	}
	for _, store := range stores {
		stack := stackOn(t, store)
		for _, seed := range seeds {
			chaos := trial{name: fmt.Sprintf("seed %d for %v", seed, d), cost: clients, lossy: true, do: func(t *testing.T, s *topologytest.Stack) {
				t.Helper()
				var faults []topologytest.Fault // the long form has all
				if !long() {
					faults = slices.DeleteFunc(s.Faults(), func(f topologytest.Fault) bool { return f.Name == "KillNode" })
				}
				for i, step := range s.Chaos(seed, d, faults...) {
					t.Logf("%d. %v", i+1, step)
				}
			}}
			t.Run(store+" "+chaos.name, func(t *testing.T) { t.Log(store, chaos.run(t, stack.Start(t))) })
		}
	}
}

// seedsToTry are those of $CHAOS_SEEDS, in words; three of this moment's without it.
func seedsToTry(t *testing.T) (seeds []uint64) {
	t.Helper()
	now := uint64(time.Now().Unix())
	given := cmp.Or(os.Getenv("CHAOS_SEEDS"), fmt.Sprintf("%d %d %d", now, now+1, now+2))
	for word := range strings.FieldsSeq(strings.ReplaceAll(given, ",", " ")) {
		seed, err := strconv.ParseUint(word, 10, 64)
		if err != nil {
			t.Fatalf("CHAOS_SEEDS has %q, which is no seed: %v", word, err)
		}
		seeds = append(seeds, seed)
	}
	return seeds
}

// timeToTry is $CHAOS_TIME, or ten minutes.
func timeToTry(t *testing.T) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(cmp.Or(os.Getenv("CHAOS_TIME"), "10m"))
	if err != nil || d <= 0 {
		t.Fatalf("CHAOS_TIME is %q, which is no duration: %v", os.Getenv("CHAOS_TIME"), err)
	}
	return d
}

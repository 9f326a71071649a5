package dcstest

import (
	"context"
	"errors"
	"iter"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// brokenEnv names the defect that TestCasesInABubble is to run with.
const brokenEnv = "DCSTEST_BROKEN"

// Each case can fail: a store that breaks one sentence of the contract is found out by these.
func TestBrokenStoresAreFoundOut(t *testing.T) {
	if os.Getenv(brokenEnv) != "" {
		t.Skip("this is one of them")
	}
	for _, b := range broken {
		t.Run(b.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			run := "^TestCasesInABubble$/^(" + strings.Join(b.fails, "|") + ")$"
			cmd := exec.CommandContext(ctx, os.Args[0], "-test.run="+run, "-test.timeout=50s") //nolint:gosec // this very test
			cmd.Env = append(os.Environ(), brokenEnv+"="+b.name)
			out, err := cmd.CombinedOutput()
			if err == nil {
				t.Fatalf("it passes %v", b.fails)
			}
			for _, name := range b.fails {
				if !strings.Contains(string(out), "--- FAIL: TestCasesInABubble/"+name) {
					t.Errorf("it does not fail %s:\n%s", name, out)
				}
			}
		})
	}
}

// broken are stores with a defect each, and cases that find it out.
var broken = []struct {
	name  string
	store func(dcs.Store) dcs.Store
	fails []string
}{
	{"trouble ends a watch", watching(func(s dcs.Snapshot, yield func(dcs.Snapshot, error) bool) bool {
		return yield(s, s.Stale)
	}), []string{"WatchIsCut", "WatchBeginsUnderACut", "QuorumIsLost"}},

	{"trouble is not told", watching(func(s dcs.Snapshot, yield func(dcs.Snapshot, error) bool) bool {
		return s.Stale != nil || yield(s, nil)
	}), []string{"WatchIsCut", "WatchIsMuted", "WatchBeginsUnderACut"}},

	{"trouble is an empty directory", watching(func(s dcs.Snapshot, yield func(dcs.Snapshot, error) bool) bool {
		if s.Stale != nil {
			s = dcs.NewSnapshot(time.Now(), nil)
		}
		return yield(s, nil)
	}), []string{"WatchIsCut", "WatchIsHalted"}},

	{"what is stale looks young", watching(func(s dcs.Snapshot, yield func(dcs.Snapshot, error) bool) bool {
		if s.Stale != nil {
			s.At = time.Now().Add(time.Second)
		}
		return yield(s, nil)
	}), []string{"WatchIsCut"}},

	{"nothing is confirmed again", func(s dcs.Store) dcs.Store { return unconfirmed{s} }, []string{"WatchIsReconfirmed"}},

	{"a watch goes back", func(s dcs.Store) dcs.Store { return goingBack{s} }, []string{"WatchIsCutAgainAndAgain"}},

	{"a watch is one element", func(s dcs.Store) dcs.Store { return once{s} }, []string{
		"WatchFollows", "VersionTellsWhatWasMissed", "WatchIsCut",
	}},

	{"a watch leaves a goroutine", func(s dcs.Store) dcs.Store { return leaking{s} }, []string{"WatchLeavesNothing"}},

	{"no answer is an empty directory", func(s dcs.Store) dcs.Store { return emptied{s} }, []string{
		"GetFailsUnderACut", "GetFailsUnderSilence",
	}},

	{"unknown is taken for not applied", writing(func(key string, write attempt) (dcs.Version, error) {
		v, err := write()
		if errors.Is(err, dcs.ErrUnknown) {
			err = errors.New("failed: " + key)
		}
		return v, err
	}), []string{"WritesFailUnderSilence", "OutcomesAreTrueUnderSilence"}},

	{"unknown is sent again", writing(func(_ string, write attempt) (dcs.Version, error) {
		v, err := write()
		for errors.Is(err, dcs.ErrUnknown) {
			v, err = write()
		}
		return v, err
	}), []string{"OutcomesAreTrueUnderSilence"}},

	{"an error does not name its key", writing(func(_ string, write attempt) (dcs.Version, error) {
		v, err := write()
		if err != nil && !errors.Is(err, dcs.ErrConflict) {
			err = dcs.ErrUnknown
		}
		return v, err
	}), []string{"WritesFailUnderACut", "ArgumentsAreChecked"}},

	{"only Modified is compared", func(s dcs.Store) dcs.Store { return halfCompared{s} }, []string{"PutNeedsTheVersion"}},

	{"the version is not compared", func(s dcs.Store) dcs.Store { return uncompared{s} }, []string{
		"PutCreatesOnce", "PutNeedsTheVersion", "PutHasOneWinner", "StaleCompareAfterRecreation",
	}},

	{"a loss is not told", func(s dcs.Store) dcs.Store { return untold{s} }, []string{
		"LeaseIsLostUnderACut", "LeaseIsLostUnderSilence", "LockIsHandedOver", "HolderIsStoppedAndContinued", "LeaseExpires",
	}},

	{"leased keys stay", func(s dcs.Store) dcs.Store { return permanent{s} }, []string{
		"LeaseTakesItsKeysAlong", "LeaseEndsOnErrorAndPanic", "EndedLeaseWritesNothing", "LockTokensGrow",
	}},

	{"the key is ended and not the lease", func(s dcs.Store) dcs.Store { return keyEnder{s} }, []string{"RevokeEndsTheLease"}},

	{"whoever has the key is ended", func(s dcs.Store) dcs.Store { return anyEnder{s} }, []string{"RevokeNeedsTheClaim", "RevokeEndsOnce"}},
}

// present returns the defect that this process is to run with.
func present(s dcs.Store) dcs.Store {
	for _, b := range broken {
		if b.name == os.Getenv(brokenEnv) {
			return b.store(s)
		}
	}
	return s
}

// watching changes the elements of watches.
func watching(f func(s dcs.Snapshot, yield func(dcs.Snapshot, error) bool) bool) func(dcs.Store) dcs.Store {
	return func(s dcs.Store) dcs.Store { return watched{s, f} }
}

type watched struct {
	dcs.Store
	f func(s dcs.Snapshot, yield func(dcs.Snapshot, error) bool) bool
}

func (w watched) Watch(ctx context.Context, dir string) iter.Seq2[dcs.Snapshot, error] {
	return func(yield func(dcs.Snapshot, error) bool) {
		for s, err := range w.Store.Watch(ctx, dir) {
			if err != nil {
				yield(s, err)
				return
			}
			if !w.f(s, yield) {
				return
			}
		}
	}
}

type attempt = func() (dcs.Version, error)

// writing changes how keys are put. An attempt that is not the first has no bound but the store's.
func writing(f func(key string, write attempt) (dcs.Version, error)) func(dcs.Store) dcs.Store {
	return func(s dcs.Store) dcs.Store { return written{s, f} }
}

type written struct {
	dcs.Store
	f func(key string, write attempt) (dcs.Version, error)
}

func (w written) Put(ctx context.Context, key string, value []byte, prev dcs.Version) (dcs.Version, error) {
	return w.f(key, func() (dcs.Version, error) {
		v, err := w.Store.Put(ctx, key, value, prev)
		ctx = context.WithoutCancel(ctx)
		return v, err
	})
}

// Package dcstest is the contract of package dcs as tests, for every back end, also for one of your own:
//
//	func TestStore(t *testing.T) {
//		dcstest.TestStore(t, func(t *testing.T) dcs.Store { return mystore.New(connect(t)) })
//	}
//
// It imports nothing but the standard library and package dcs.
package dcstest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// within bounds every wait: far beyond what a healthy store needs.
const within = time.Minute

// TestStore runs every case as a subtest of t. open returns a store that can be reached; it is called once for each
// case and may return the same store again, since each case works in a directory of its own.
func TestStore(t *testing.T, open func(t *testing.T) dcs.Store) {
	for _, c := range []struct {
		name string
		run  func(*fixture)
	}{
		{"DirectoryIsNotItsSibling", directoryIsNotItsSibling},
		{"GetSeesWhatWasWritten", getSeesWhatWasWritten},
		{"PutCreatesOnce", putCreatesOnce},
		{"PutNeedsTheVersion", putNeedsTheVersion},
		{"PutHasOneWinner", putHasOneWinner},
		{"DeleteNeedsTheVersion", deleteNeedsTheVersion},
		{"CreatedGrows", createdGrows},
		{"ArgumentsAreChecked", argumentsAreChecked},
		{"EndedContextChangesNothing", endedContextChangesNothing},
		{"WatchBeginsWithTheLevel", watchBeginsWithTheLevel},
		{"WatchFollows", watchFollows},
		{"WatchMindsItsDirectory", watchMindsItsDirectory},
		{"WatchIsSlowAndGetsTheNewest", watchIsSlowAndGetsTheNewest},
		{"WatchNeverGoesBack", watchNeverGoesBack},
		{"WatchEndsWithItsContext", watchEndsWithItsContext},
		{"WatchLeavesNothing", watchLeavesNothing},
		{"LeaseTakesItsKeysAlong", leaseTakesItsKeysAlong},
		{"LeaseEndsOnErrorAndPanic", leaseEndsOnErrorAndPanic},
		{"LeaseEndsWithItsContext", leaseEndsWithItsContext},
		{"LeaseTakesOverAKey", leaseTakesOverAKey},
		{"PlainPutKeepsTheLease", plainPutKeepsTheLease},
		{"EndedLeaseWritesNothing", endedLeaseWritesNothing},
		{"LockHasOneHolder", lockHasOneHolder},
		{"LockTokensGrow", lockTokensGrow},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), within)
			defer cancel()
			c.run(&fixture{
				T:     t,
				ctx:   ctx,
				Store: open(t),
				dir:   fmt.Sprintf("/dcstest/%s-%08x", c.name, rand.Uint32()),
			})
		})
	}
}

// fixture is what a case works with. Its helpers end the case when the store fails.
type fixture struct {
	*testing.T
	dcs.Store
	ctx context.Context // the bound of the case
	dir string          // used by nobody else
}

func (f *fixture) key(name string) string { return f.dir + "/" + name }

func (f *fixture) put(w dcs.Writer, name, value string, prev dcs.Version) dcs.Version {
	f.Helper()
	v, err := w.Put(f.ctx, f.key(name), []byte(value), prev)
	if err != nil {
		f.Fatalf("put %s: %v", name, err)
	}
	return v
}

func (f *fixture) get(dir string) dcs.Snapshot {
	f.Helper()
	s, err := f.Store.Get(f.ctx, dir)
	if err != nil {
		f.Fatalf("get %s: %v", dir, err)
	}
	if !s.Known() || s.Stale != nil {
		f.Fatalf("get %s: known %v, stale %v", dir, s.Known(), s.Stale)
	}
	return s
}

// want fails unless the snapshot holds exactly these keys and values below the fixture's directory.
func (f *fixture) want(s dcs.Snapshot, pairs ...string) {
	f.Helper()
	if got, want := f.list(s), fmt.Sprint(pairs); got != want {
		f.Fatalf("content is %v, want %v", got, want)
	}
}

func (f *fixture) list(s dcs.Snapshot) string {
	got := []string{}
	for e := range s.All(f.dir) {
		got = append(got, e.Key[len(f.dir)+1:]+"="+string(e.Value))
	}
	return fmt.Sprint(got)
}

// await ranges over a watch until its content is this.
func (f *fixture) await(pairs ...string) {
	f.Helper()
	for s, err := range f.Watch(f.ctx, f.dir) {
		if err != nil {
			f.Fatalf("watch ended with %v before the content was %v; it is %v", err, pairs, f.list(s))
		}
		if s.Known() && s.Stale == nil && f.list(s) == fmt.Sprint(pairs) {
			return
		}
	}
}

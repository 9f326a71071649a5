package dcs_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
)

func entry(key string, rev uint64) dcs.Entry {
	return dcs.Entry{Key: key, Value: fmt.Append(nil, rev), Version: dcs.Version{Created: 1, Modified: rev}}
}

func keys(s dcs.Snapshot, dir string) []string {
	var k []string
	for e := range s.All(dir) {
		k = append(k, e.Key)
	}
	return k
}

func TestSnapshotOfADirectory(t *testing.T) {
	s := dcs.NewSnapshot(time.Now(), []dcs.Entry{
		entry("/a/b", 1), entry("/ab", 2), entry("/a", 3), entry("/a/b/c", 4), entry("/a/0", 5), entry("/a-", 6), entry("/a/b", 7),
	})
	for dir, want := range map[string][]string{
		"/a":   {"/a/0", "/a/b", "/a/b/c"},
		"/a/":  {"/a/0", "/a/b", "/a/b/c"},
		"/a/b": {"/a/b/c"},
		"/ab":  nil,
		"/":    {"/a", "/a-", "/a/0", "/a/b", "/a/b/c", "/ab"},
		"":     {"/a", "/a-", "/a/0", "/a/b", "/a/b/c", "/ab"},
	} {
		if got := keys(s, dir); !slices.Equal(got, want) {
			t.Errorf("%q has %v, want %v", dir, got, want)
		}
	}
	if e, ok := s.Get("/a/b"); !ok || e.Version.Modified != 7 {
		t.Errorf("of two entries with one key the later one counts, got %v", e)
	}
	if _, ok := s.Get("/absent"); ok {
		t.Error("an absent key is there")
	}
	for range s.All("/") {
		break // a consumer that leaves
	}
}

func TestSnapshotZero(t *testing.T) {
	var s dcs.Snapshot
	if _, ok := s.Get("/a"); ok || s.Known() || keys(s, "/") != nil {
		t.Error("the zero snapshot has content")
	}
	if changed := slices.Collect(s.With(entry("/a", 1)).Changed(s)); !slices.Equal(changed, []string{"/a"}) {
		t.Errorf("changed is %v", changed)
	}
}

func TestSnapshotRenew(t *testing.T) {
	old := dcs.NewSnapshot(time.Now(), []dcs.Entry{entry("/a", 1), entry("/b", 1), entry("/c", 1)})
	old.Stale = errors.New("trouble")
	now := time.Now()
	next := old.Renew(now, []dcs.Entry{entry("/c", 2), entry("/b", 1), entry("/d", 1)})
	if !next.At.Equal(now) || next.Stale != nil {
		t.Errorf("at %v, stale %v", next.At, next.Stale)
	}
	if got := slices.Collect(next.Changed(old)); !slices.Equal(got, []string{"/a", "/c", "/d"}) {
		t.Errorf("changed is %v", got)
	}
	if got := slices.Collect(old.Changed(next)); !slices.Equal(got, []string{"/a", "/c", "/d"}) {
		t.Errorf("the other way it is %v", got)
	}
	for range next.Changed(old) {
		break
	}
}

// Any history of changes gives the same as a map, old versions stay what they were, and Changed finds exactly the
// difference between any two of them.
func TestSnapshotAgainstAMap(t *testing.T) {
	type version struct {
		snap  dcs.Snapshot
		model map[string]uint64
	}
	history := []version{{}}
	model := map[string]uint64{}
	var s dcs.Snapshot
	for rev := range uint64(500) {
		key := fmt.Sprintf("/k/%02d", rand.N(60))
		switch rand.N(4) {
		case 0:
			s = s.Without(key)
			delete(model, key)
		case 1:
			var all []dcs.Entry
			for k := range model {
				if rand.N(20) == 0 {
					delete(model, k)
					continue
				}
				all = append(all, entry(k, model[k]))
			}
			s = s.Renew(time.Now(), all)
		default:
			s = s.With(entry(key, rev+1))
			model[key] = rev + 1
		}
		history = append(history, version{s, maps.Clone(model)})
	}
	for _, v := range history {
		got := map[string]uint64{}
		for e := range v.snap.All("/k") {
			got[e.Key] = e.Version.Modified
			if found, ok := v.snap.Get(e.Key); !ok || found.Version != e.Version {
				t.Fatalf("All has %v, Get has %v", e, found)
			}
		}
		if !maps.Equal(got, v.model) {
			t.Fatalf("content is %v, want %v", got, v.model)
		}
		if k := keys(v.snap, "/k"); !slices.IsSorted(k) {
			t.Fatalf("not sorted: %v", k)
		}
		other := history[rand.N(len(history))]
		var want []string
		for k := range maps.Keys(v.model) {
			if v.model[k] != other.model[k] {
				want = append(want, k)
			}
		}
		for k := range other.model {
			if _, ok := v.model[k]; !ok {
				want = append(want, k)
			}
		}
		slices.Sort(want)
		if got := slices.Collect(v.snap.Changed(other.snap)); !slices.Equal(got, want) {
			t.Fatalf("changed is %v, want %v", got, want)
		}
	}
}

// A store that was replaced by a copy of its past may have given a version a second time.
func TestSnapshotComparesValues(t *testing.T) {
	at := time.Now()
	a, b := entry("/a", 7), entry("/a", 7)
	b.Value = []byte("of another history")
	old := dcs.NewSnapshot(at, []dcs.Entry{a, entry("/b", 1)})
	next := old.Renew(at, []dcs.Entry{b, entry("/b", 1)})
	if e, _ := next.Get("/a"); string(e.Value) != string(b.Value) {
		t.Errorf("renewed to %q", e.Value)
	}
	if got := slices.Collect(next.Changed(old)); !slices.Equal(got, []string{"/a"}) {
		t.Errorf("changed is %v", got)
	}
}

// Changed costs what changed, and not what there is. The floor knows what changed, and looks it up in both snapshots.
func BenchmarkSnapshotChanged(b *testing.B) {
	for _, n := range []int{100, 10_000, 90_000} {
		all := make([]dcs.Entry, n)
		for i := range all {
			all[i] = entry(fmt.Sprintf("/k/%06d", i), 1)
		}
		old := dcs.NewSnapshot(time.Now(), all)
		for _, k := range []int{1, 100} {
			next, changed := old, make([]string, k)
			for i := range changed {
				e := entry(all[rand.N(n)].Key, uint64(2+i))
				next, changed[i] = next.With(e), e.Key
			}
			run := func(what string, f func() int) {
				b.Run(fmt.Sprintf("%s/%d of %d", what, k, n), func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						if f() == 0 {
							b.Fatal("nothing changed")
						}
					}
				})
			}
			run("Changed", func() (found int) {
				for range next.Changed(old) {
					found++
				}
				return found
			})
			run("floor", func() (found int) {
				for _, key := range changed {
					was, _ := old.Get(key)
					if is, _ := next.Get(key); is.Version != was.Version {
						found++
					}
				}
				return found
			})
		}
	}
}

// BenchmarkSnapshotWith is what an event costs. The floor writes into a map, which nobody can share.
func BenchmarkSnapshotWith(b *testing.B) {
	for _, n := range []int{100, 10_000, 90_000} {
		all := make([]dcs.Entry, n)
		for i := range all {
			all[i] = entry(fmt.Sprintf("/k/%06d", i), 1)
		}
		b.Run(fmt.Sprintf("With/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			s := dcs.NewSnapshot(time.Now(), all)
			for b.Loop() {
				s = s.With(all[rand.N(n)])
			}
		})
		b.Run(fmt.Sprintf("floor/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			m := map[string]dcs.Entry{}
			for _, e := range all {
				m[e.Key] = e
			}
			for b.Loop() {
				e := all[rand.N(n)]
				m[e.Key] = e
			}
		})
	}
}

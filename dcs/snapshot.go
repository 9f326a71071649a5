package dcs

import (
	"cmp"
	"iter"
	"slices"
	"time"
)

// Snapshot is the content of a directory. It is a value: copies and later versions share their entries, which never
// change. The zero value is not [Snapshot.Known] and empty.
type Snapshot struct {
	At    time.Time // the content was confirmed to be current at this moment or later; zero: never
	Stale error     // why it could not be confirmed since At; nil: it is confirmed

	root *node
}

// NewSnapshot makes a confirmed snapshot of entries in any order. Of two entries with one key the later one counts.
func NewSnapshot(at time.Time, e []Entry) Snapshot {
	sorted := slices.Clone(e)
	slices.SortStableFunc(sorted, func(a, b Entry) int { return cmp.Compare(a.Key, b.Key) })
	n := 0
	for i, e := range sorted {
		if i > 0 && sorted[n-1].Key == e.Key {
			n--
		}
		sorted[n] = e
		n++
	}
	return Snapshot{At: at, root: build(sorted[:n])}
}

// With returns s with e written. At and Stale stay. Back ends use it for the events of a watch.
func (s Snapshot) With(e Entry) Snapshot {
	s.root = insert(s.root, newNode(e))
	return s
}

// Without returns s with key removed. At and Stale stay.
func (s Snapshot) Without(key string) Snapshot {
	s.root = remove(s.root, key)
	return s
}

// Renew returns a snapshot of exactly e, confirmed at that moment, which shares with s what is the same, so that
// [Snapshot.Changed] between the two stays cheap. Back ends use it for a full read.
func (s Snapshot) Renew(at time.Time, e []Entry) Snapshot {
	next := NewSnapshot(at, e)
	if s.root == nil {
		return next
	}
	s.At, s.Stale = at, nil
	for key := range next.Changed(s) {
		if e, ok := next.Get(key); ok {
			s = s.With(e)
		} else {
			s = s.Without(key)
		}
	}
	return s
}

// Known reports whether the content was ever confirmed. Without it, absence of a key means nothing.
func (s Snapshot) Known() bool { return !s.At.IsZero() }

// Get returns one entry by its absolute key.
func (s Snapshot) Get(key string) (Entry, bool) {
	if n := s.root.find(key); n != nil {
		return n.Entry, true
	}
	return Entry{}, false
}

// All yields the entries below dir, sorted by key.
func (s Snapshot) All(dir string) iter.Seq[Entry] {
	return func(yield func(Entry) bool) { s.root.below(Prefix(dir), yield) }
}

// Changed yields the keys that were added, removed or written between old and s, sorted. Between two elements of one
// watch it costs what changed, not what there is.
func (s Snapshot) Changed(old Snapshot) iter.Seq[string] {
	return func(yield func(string) bool) { diff(old.root, s.root, yield) }
}

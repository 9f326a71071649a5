package dcs

import (
	"bytes"
	"hash/maphash"
	"strings"
)

// A node is one entry of an immutable search tree: sorted by key, and a heap by a hash of the key. The hash makes the
// shape depend on the keys alone, so that two versions of a directory share all that did not change, and a comparison
// skips it. Nothing is ever written after it was linked.
type node struct {
	Entry
	rank        uint64
	left, right *node
}

var seed = maphash.MakeSeed()

func newNode(e Entry) *node { return &node{Entry: e, rank: maphash.String(seed, e.Key)} }

// above reports whether n belongs nearer to the root than m.
func (n *node) above(m *node) bool {
	return n.rank > m.rank || n.rank == m.rank && n.Key < m.Key
}

func (n *node) with(left, right *node) *node {
	return &node{Entry: n.Entry, rank: n.rank, left: left, right: right}
}

// build makes a tree of entries that are sorted by unique keys.
func build(sorted []Entry) *node {
	var spine []*node // the right edge, from the root down; not yet shared, so it may be written
	for _, e := range sorted {
		n := newNode(e)
		for len(spine) > 0 && n.above(spine[len(spine)-1]) {
			n.left = spine[len(spine)-1]
			spine = spine[:len(spine)-1]
		}
		if len(spine) > 0 {
			spine[len(spine)-1].right = n
		}
		spine = append(spine, n)
	}
	if len(spine) == 0 {
		return nil
	}
	return spine[0]
}

func (n *node) find(key string) *node {
	for n != nil && n.Key != key {
		if key < n.Key {
			n = n.left
		} else {
			n = n.right
		}
	}
	return n
}

// insert returns the tree n with e in it; e replaces an entry of the same key.
func insert(n, e *node) *node {
	switch {
	case n == nil:
		return e
	case n.Key == e.Key:
		return e.with(n.left, n.right)
	case e.above(n): // so no entry of that key can be below n
		left, right := split(n, e.Key)
		return e.with(left, right)
	case e.Key < n.Key:
		return n.with(insert(n.left, e), n.right)
	default:
		return n.with(n.left, insert(n.right, e))
	}
}

// remove returns the tree n without key, and n itself if the key is not in it.
func remove(n *node, key string) *node {
	switch {
	case n == nil:
		return nil
	case n.Key == key:
		return merge(n.left, n.right)
	case key < n.Key:
		if left := remove(n.left, key); left != n.left {
			return n.with(left, n.right)
		}
	default:
		if right := remove(n.right, key); right != n.right {
			return n.with(n.left, right)
		}
	}
	return n
}

// split cuts n into what is before and what is after key, which is not in n.
func split(n *node, key string) (before, after *node) {
	if n == nil {
		return nil, nil
	}
	if key < n.Key {
		before, after = split(n.left, key)
		return before, n.with(after, n.right)
	}
	before, after = split(n.right, key)
	return n.with(n.left, before), after
}

// merge joins two trees; every key of a is before every key of b.
func merge(a, b *node) *node {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.above(b):
		return a.with(a.left, merge(a.right, b))
	default:
		return b.with(merge(a, b.left), b.right)
	}
}

// below yields the entries whose keys begin with prefix, sorted. It returns false when the walk is to end.
func (n *node) below(prefix string, yield func(Entry) bool) bool {
	if n == nil {
		return true
	}
	if n.Key < prefix {
		return n.right.below(prefix, yield)
	}
	return n.left.below(prefix, yield) &&
		strings.HasPrefix(n.Key, prefix) && yield(n.Entry) &&
		n.right.below(prefix, yield)
}

// same reports whether two entries of one key are equal. Of a store that was replaced by a copy of its past, the versions
// of another history may meet those of the present one; the values of shared entries are compared by address alone.
func same(a, b *node) bool { return a.Version == b.Version && bytes.Equal(a.Value, b.Value) }

// diff yields the keys whose entries differ between a and b, sorted. Shared parts are not entered.
func diff(a, b *node, yield func(string) bool) bool {
	switch {
	case a == b:
		return true
	case a == nil:
		return b.below("", func(e Entry) bool { return yield(e.Key) })
	case b == nil:
		return a.below("", func(e Entry) bool { return yield(e.Key) })
	case a.Key == b.Key:
		return diff(a.left, b.left, yield) &&
			(same(a, b) || yield(a.Key)) &&
			diff(a.right, b.right, yield)
	case a.above(b): // so a.Key is not in b
		left, right := split(b, a.Key)
		return diff(a.left, left, yield) && yield(a.Key) && diff(a.right, right, yield)
	default:
		left, right := split(a, b.Key)
		return diff(left, b.left, yield) && yield(b.Key) && diff(right, b.right, yield)
	}
}

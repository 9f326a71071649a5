package zookeeper

import (
	"math"

	"github.com/go-zookeeper/zk"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// tree is what is known of a directory, made of readings of single nodes in any order, also old ones and twice: what
// came before does not come back. The order is that of the transactions that a node shows: czxid made it, mzxid wrote it,
// pzxid made or deleted one directly below it.
type tree struct {
	dir   string
	nodes map[string]*node // by key; that of dir is always there
	snap  dcs.Snapshot     // the keys among them
}

// node is one that the node above it lists.
type node struct {
	after  int64 // it was made after this
	alive  int64 // it was there then: it, or something below it, was made
	missed bool  // a reading found it gone

	// As of the last reading of its data; zero: none yet.
	data         []byte
	czxid, mzxid int64
	version      dcs.Version
	children     int

	// As of the last reading of what is below it; zero: none yet.
	made, pzxid int64               // made is its czxid
	below       map[string]struct{} // names
}

func newTree(dir string) *tree {
	return &tree{dir: dir, nodes: map[string]*node{dir: {}}}
}

// write takes a reading of a node's data. list asks for a reading of what is below it: there is none, or an old one.
func (t *tree) write(key string, data []byte, stat *zk.Stat) (list bool) {
	n := t.nodes[key]
	if n == nil || stat.Czxid <= n.after || stat.Czxid < max(n.czxid, n.made) || stat.Czxid == n.czxid && stat.Mzxid < n.mzxid {
		return false
	}
	if stat.Czxid > n.made { // another node than was listed, which went after all that was below it
		t.clear(key, n, stat.Czxid)
	}
	n.missed = false
	n.data, n.czxid, n.mzxid, n.version, n.children = data, stat.Czxid, stat.Mzxid, version(stat), int(stat.NumChildren)
	t.show(key, n)
	t.confirm(key, stat.Czxid)
	return stat.Pzxid > n.pzxid
}

// list takes a reading of the names below a node, and returns the keys that are new.
func (t *tree) list(key string, names []string, stat *zk.Stat) (added []string) {
	n := t.nodes[key]
	if n == nil || stat.Czxid <= n.after || stat.Czxid < max(n.czxid, n.made) || stat.Pzxid < n.pzxid {
		return nil
	}
	if stat.Czxid > n.made {
		t.clear(key, n, stat.Czxid)
	}
	old, after := n.below, max(stat.Czxid, n.pzxid) // what was not listed before has been made since
	n.made, n.pzxid, n.below = stat.Czxid, stat.Pzxid, nil
	if len(names) > 0 { // most have none
		n.below = make(map[string]struct{}, len(names))
	}
	for _, name := range names {
		n.below[name] = struct{}{}
		below := key + "/" + name
		if m := t.nodes[below]; m == nil {
			t.nodes[below] = &node{after: after}
			added = append(added, below)
		} else if m.missed {
			m.missed = false
			added = append(added, below)
		}
	}
	for name := range old {
		if _, ok := n.below[name]; ok {
			continue
		}
		if t.nodes[key+"/"+name].alive <= stat.Pzxid {
			t.drop(key + "/" + name)
			continue
		}
		if n.below == nil {
			n.below = make(map[string]struct{})
		}
		n.below[name] = struct{}{} // made after this was read
	}
	t.show(key, n)
	t.confirm(key, stat.Czxid)
	return added
}

// confirm notes when a node was there, and so all above it.
func (t *tree) confirm(key string, at int64) {
	for n := t.nodes[key]; n != nil && n.alive < at; n = t.nodes[key] {
		n.alive = at
		key = parent(key)
	}
}

// miss takes it that a node was not found: it goes when the one above says so.
func (t *tree) miss(key string) {
	if n := t.nodes[key]; n != nil {
		n.missed = true
	}
}

// empty takes it that the directory itself was not found.
func (t *tree) empty() { t.clear(t.dir, t.nodes[t.dir], math.MaxInt64) }

func (t *tree) drop(key string) {
	n := t.nodes[key]
	if n == nil {
		return
	}
	t.clear(key, n, math.MaxInt64)
	delete(t.nodes, key)
	t.snap = t.snap.Without(key)
}

// clear drops what was made below a node before that, and forgets how it was listed.
func (t *tree) clear(key string, n *node, before int64) {
	for name := range n.below {
		if t.nodes[key+"/"+name].alive < before {
			t.drop(key + "/" + name)
			delete(n.below, name)
		}
	}
	n.made, n.pzxid = 0, 0
}

// show brings the key of a node up to date.
func (t *tree) show(key string, n *node) {
	if key == t.dir || n.czxid == 0 {
		return
	}
	children := n.children
	if n.made == n.czxid {
		children = len(n.below)
	}
	if !isKey(n.data, children) {
		t.snap = t.snap.Without(key)
		return
	}
	if e, ok := t.snap.Get(key); !ok || e.Version != n.version {
		t.snap = t.snap.With(dcs.Entry{Key: key, Value: n.data, Version: n.version})
	}
}

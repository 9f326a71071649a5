package zookeeper

import (
	"path"

	"github.com/go-zookeeper/zk"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// reading is what was read of a node.
type reading struct {
	data  []byte   // nil: none, which is not the same as empty
	stat  *zk.Stat // nil: there is no such node
	names []string // of the nodes below it
}

// entry is the node as a key, if it is one and not merely the parent of others.
func (r reading) entry(key string) (dcs.Entry, bool) {
	if r.stat == nil || !isKey(r.data, int(r.stat.NumChildren)) {
		return dcs.Entry{}, false
	}
	return dcs.Entry{Key: key, Value: r.data, Version: version(r.stat)}, true
}

// isKey tells a key from a node that was only made to hold others: by this package without data, by others with empty data.
func isKey(data []byte, children int) bool {
	return len(data) > 0 || data != nil && children == 0
}

func version(stat *zk.Stat) dcs.Version {
	return dcs.Version{Created: uint64(stat.Czxid), Modified: uint64(uint32(stat.Version))}
}

// check refuses a key that is outside the grammar, which is ZooKeeper's; and the store's root.
func (s *Store) check(field, key string) error {
	if err := dcs.CheckKey(field, key); err != nil || s.Root == "" {
		return err
	}
	return dcs.CheckKey("Root", s.Root)
}

// parent is the key of the node that holds key's; "/" at the top.
func parent(key string) string { return path.Dir(key) }

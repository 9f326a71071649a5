package zookeeper

import "context"

// merge adds a reading to the tree and asks for those that follow from it.
func (w *watch) merge(ctx context.Context, r result) {
	marked := w.done(r.at)
	key := r.at.key
	if w.dead(r) {
		w.s.arms.drop(r.at, r.arm)
		delete(w.waiting, r.at)
		r.arm = nil
		w.want(r.at, marked)
	}
	switch {
	case r.stat == nil && key == w.dir:
		w.tree.empty()
	case w.tree.nodes[key] == nil: // it is gone since
	case r.stat == nil: // the node above says whether it is gone or made again
		w.tree.miss(key)
		w.want(spot{parent(key), names}, marked)
	case r.at.kind == data:
		if w.tree.write(key, r.data, r.stat) {
			w.want(spot{key, names}, marked)
		} else if marked {
			w.wantBelow(key)
		}
	default:
		for _, key := range w.tree.list(key, r.names, r.stat) {
			w.want(spot{key, data}, marked)
			w.want(spot{key, names}, marked)
		}
		if marked {
			w.wantBelow(key)
		}
	}
	if r.arm != nil && w.waiting[r.at].arm != r.arm {
		w.add(ctx, r.at, r.arm)
	}
}

// dead reports whether an arm did not fire when it had to: a server tells what it has to tell before it answers with it.
// Servers keep events from those who may not read the node, and what they kept back is not armed any more.
func (w *watch) dead(r result) bool {
	n := w.tree.nodes[r.at.key]
	if n == nil || r.stat == nil || r.arm == nil || w.waiting[r.at].arm != r.arm {
		return false
	}
	changed := n.mzxid > 0 && r.stat.Mzxid > n.mzxid
	if r.at.kind == names {
		changed = n.pzxid > 0 && r.stat.Pzxid > n.pzxid
	}
	return changed && !r.arm.spent()
}

func (w *watch) wantBelow(key string) {
	if n := w.tree.nodes[key]; n != nil {
		for name := range n.below {
			w.want(spot{key + "/" + name, data}, true)
		}
	}
}

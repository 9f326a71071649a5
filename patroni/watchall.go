package patroni

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strings"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// WatchAll follows every cluster of a namespace ("/service") with one watch. An element is one cluster that has
// changed, as it is now: first each that there is, then those that change, in the order in which they did. A cluster
// that changes again before its turn comes is given once, at its newest; so a slow consumer misses nothing that lasts,
// and one busy cluster does not keep the others waiting. A cluster whose keys are all removed is given once more, as
// [Cluster.Gone]. Of a Citus cluster each group is a cluster of its own, "/service/demo/0".
//
// At and Stale of an element are those of the whole namespace at the moment when it is given. An element whose Path is
// the namespace is no cluster and has nothing but these. It comes when the store ceases or begins again to answer, when
// a confirmation has found nothing new, and the first one that is Known comes after every cluster of the first level.
// So trouble is told once, and not for each cluster: what was given stays the last confirmed content. Equal ones may
// repeat.
//
//	for c, err := range patroni.WatchAll(ctx, store, "/service") {
//		switch {
//		case err != nil:
//			return err // bad argument, refused credentials, or the end of ctx
//		case c.Path == "/service":
//			synced, trouble = c.Known(), c.Stale
//		case c.Gone:
//			delete(clusters, c.Path)
//		default:
//			clusters[c.Path] = c
//		}
//	}
//
// Elements share what did not change: do not write to what their fields point to. A non-nil error is the last pair.
// Reading the namespace needs the right to read below it.
func WatchAll(ctx context.Context, r dcs.Reader, namespace string) iter.Seq2[Cluster, error] {
	return func(yield func(Cluster, error) bool) {
		if err := dcs.CheckKey("namespace", namespace); err != nil {
			yield(Cluster{}, err)
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		levels, wait := dcs.Latest(r.Watch(ctx, namespace))
		defer func() {
			cancel()
			_ = wait()
		}()
		w := watchAll{namespace: namespace, clusters: make(map[string]*followed)}
		for {
			s, open, news := w.wait(levels)
			if !open {
				err := wait()
				if err == nil {
					err = errors.New("patroni: the store's watch ended without a reason")
				}
				yield(w.all(), err)
				return
			}
			if news {
				w.take(s)
			}
			if c, ok := w.next(); ok && !yield(c, nil) {
				return
			}
		}
	}
}

// watchAll is the state of one WatchAll.
type watchAll struct {
	namespace string
	snap      dcs.Snapshot
	clusters  map[string]*followed
	queue     []string // paths that are to be given, each once; the namespace may be one
	allQueued bool
}

// followed is a cluster as decoded so far: of a change only what it is about is decoded.
type followed struct {
	Cluster
	queued bool
	given  bool // at least once
	lost   bool // a key was removed: perhaps the last
}

// wait returns the next level. It does not wait for one while there is something to give.
func (w *watchAll) wait(levels <-chan dcs.Snapshot) (s dcs.Snapshot, open, news bool) {
	if len(w.queue) == 0 {
		s, open = <-levels
		return s, open, true
	}
	select {
	case s, open = <-levels:
		return s, open, true
	default:
		return s, true, false
	}
}

// take decodes what differs in s from the level before.
func (w *watchAll) take(s dcs.Snapshot) {
	old := w.snap
	w.snap = s
	first := s.Known() && !old.Known()
	if first {
		w.queue, w.allQueued = nil, false // it comes after the clusters
	}
	changed, prefix := false, dcs.Prefix(w.namespace)
	for key := range s.Changed(old) {
		path, name, ok := split(prefix, key)
		if !ok {
			continue
		}
		changed = true
		c := w.clusters[path]
		if c == nil {
			c = &followed{Cluster: newCluster(path)}
			w.clusters[path] = c
		}
		e, there := s.Get(key)
		if strings.HasPrefix(name, "members/") {
			c.Members = slices.Clone(c.Members) // the old ones may be in somebody's hands
		}
		c.set(name, e, s)
		c.lost = c.lost || !there
		if !c.queued {
			c.queued = true
			w.queue = append(w.queue, path)
		}
	}
	if told := changed && !first && (s.Stale == nil) == (old.Stale == nil); !told && !w.allQueued {
		w.allQueued = true
		w.queue = append(w.queue, w.namespace)
	}
}

// next is the element whose turn it is; ok is false if there is none.
func (w *watchAll) next() (c Cluster, ok bool) {
	if len(w.queue) == 0 {
		return c, false
	}
	path := w.queue[0]
	w.queue = w.queue[1:]
	if path == w.namespace {
		w.allQueued = false
		return w.all(), true
	}
	f := w.clusters[path]
	f.queued = false
	if f.lost {
		f.Gone = !exists(path, w.snap)
		f.lost = false
	}
	if f.Gone {
		delete(w.clusters, path)
		if !f.given {
			return c, false // it came and went between two elements
		}
	}
	f.given = true
	c = f.Cluster
	c.At, c.Stale = w.snap.At, w.snap.Stale
	return c, true
}

// all is the element that is about the watch and no cluster.
func (w *watchAll) all() Cluster {
	return Cluster{Path: w.namespace, At: w.snap.At, Stale: w.snap.Stale}
}

// exists reports whether a cluster has a key.
func exists(path string, s dcs.Snapshot) bool {
	for e := range s.All(path) {
		if isKey(e.Key[len(path)+1:]) {
			return true
		}
	}
	return false
}

// split takes a key apart: the path of the cluster, or of a Citus cluster's group, and the key's name there. ok is false
// if it is none of Patroni's in the namespace that prefix stands for.
func split(prefix, key string) (path, name string, ok bool) {
	_, name, _ = strings.Cut(strings.TrimPrefix(key, prefix), "/")
	if group, inner, ok := strings.Cut(name, "/"); ok && digits(group) {
		name = inner
	}
	if !isKey(name) {
		return "", "", false
	}
	return key[:len(key)-len(name)-1], name, true
}

func digits(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r < '0' || r > '9' })
}

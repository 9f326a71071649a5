package zookeeper

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/go-zookeeper/zk"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// world is a ZooKeeper as far as its nodes' states go.
type world struct {
	zxid  int64
	nodes map[string]*worldNode
}

type worldNode struct {
	data []byte
	stat zk.Stat
}

func newWorld() *world {
	w := &world{nodes: map[string]*worldNode{}}
	w.make("/d", nil)
	return w
}

func (w *world) make(key string, data []byte) {
	w.zxid++
	w.nodes[key] = &worldNode{data, zk.Stat{Czxid: w.zxid, Mzxid: w.zxid, Pzxid: w.zxid}}
	w.touch(key)
}

func (w *world) touch(key string) {
	if above := w.nodes[parent(key)]; above != nil {
		above.stat.Pzxid = w.zxid
		above.stat.NumChildren = int32(len(w.below(parent(key))))
	}
}

func (w *world) below(key string) (names []string) {
	for k := range w.nodes {
		if parent(k) == key {
			names = append(names, k[len(key)+1:])
		}
	}
	return names
}

// step does one random thing.
func (w *world) step(r *rand.Rand) {
	keys := []string{"/d/a", "/d/b", "/d/a/x", "/d/a/y", "/d/b/x", "/d/a/x/1"}
	key := keys[r.IntN(len(keys))]
	switch n := w.nodes[key]; {
	case n == nil && w.nodes[parent(key)] != nil:
		if r.IntN(4) == 0 {
			w.make(key, nil) // no key, merely a parent
		} else {
			w.make(key, fmt.Append(nil, w.zxid+1))
		}
	case n != nil && len(w.below(key)) == 0 && r.IntN(2) == 0:
		w.zxid++
		delete(w.nodes, key)
		w.touch(key)
	case n != nil:
		w.zxid++
		n.data, n.stat.Mzxid, n.stat.Version = fmt.Append(nil, w.zxid), w.zxid, n.stat.Version+1
	}
}

// look returns a reading of a spot, as of now.
func (w *world) look(at spot) result {
	res := result{at: at}
	if n := w.nodes[at.key]; n != nil {
		stat := n.stat
		res.stat = &stat
		if at.kind == data {
			res.data = n.data
		} else {
			res.names = w.below(at.key)
		}
	}
	return res
}

func (w *world) String() string {
	var keys []string
	for _, key := range slices.Sorted(maps.Keys(w.nodes)) {
		if n := w.nodes[key]; n.data != nil {
			keys = append(keys, fmt.Sprintf("%s=%s", key, n.data))
		}
	}
	return strings.Join(keys, " ")
}

func (t *tree) String() string {
	var keys []string
	for e := range t.snap.All("/d") {
		keys = append(keys, fmt.Sprintf("%s=%s", e.Key, e.Value))
	}
	return strings.Join(keys, " ")
}

// feed gives the tree a reading as a watch does, and returns what it asks for.
func (t *tree) feed(r result) (wanted []spot) {
	switch {
	case t.nodes[r.at.key] == nil:
	case r.stat == nil && r.at.key != t.dir:
		t.miss(r.at.key)
		wanted = append(wanted, spot{parent(r.at.key), names})
	case r.stat == nil:
	case r.at.kind == data:
		if t.write(r.at.key, r.data, r.stat) {
			wanted = append(wanted, spot{r.at.key, names})
		}
	default:
		for _, key := range t.list(r.at.key, r.names, r.stat) {
			wanted = append(wanted, spot{key, data}, spot{key, names})
		}
	}
	return wanted
}

// settle reads until the tree asks for nothing, beginning with everything.
func (t *tree) settle(w *world) {
	todo := []spot{{"/d", names}}
	for key := range maps.Keys(t.nodes) {
		todo = append(todo, spot{key, data}, spot{key, names})
	}
	for len(todo) > 0 {
		at := todo[0]
		todo = append(todo[1:], t.feed(w.look(at))...)
	}
}

// tally counts what a run has proven.
type tally struct{ readings, old, shown int }

// play gives a tree readings in any order, twice, and long after they were true, while the world goes on. What was shown
// must not come back, and in the end the tree must be what the world is.
func play(t *testing.T, r *rand.Rand, readings int) (n tally) {
	const window = 64
	w, tr := newWorld(), newTree("/d")
	var past []result
	tops, gone := map[string]dcs.Version{}, map[string]bool{}
	for range readings {
		if r.IntN(3) == 0 {
			w.step(r)
		}
		spots := []spot{{"/d", names}}
		for _, key := range slices.Sorted(maps.Keys(w.nodes)) {
			spots = append(spots, spot{key, data}, spot{key, names})
		}
		past = append(past, w.look(spots[r.IntN(len(spots))]))
		past = past[max(0, len(past)-window):]
		res := past[r.IntN(len(past))]
		n.readings++
		if now := w.look(res.at); now.stat == nil || *now.stat != *res.stat {
			n.old++
		}
		before := tr.snap
		tr.feed(res)
		for key := range tr.snap.Changed(before) {
			e, ok := tr.snap.Get(key)
			if !ok {
				gone[key] = true
				continue
			}
			top := tops[key]
			if e.Version.Created < top.Created || e.Version.Created == top.Created && (gone[key] || e.Version.Modified <= top.Modified) {
				t.Fatalf("%s is at %v, was at %v, gone since: %v", key, e.Version, top, gone[key])
			}
			n.shown++
			tops[key], gone[key] = e.Version, false
		}
	}
	tr.settle(w)
	if got, want := tr.String(), w.String(); got != want {
		t.Fatalf("the tree is %q, the world %q", got, want)
	}
	return n
}

func TestTreeNeverGoesBack(t *testing.T) {
	var all tally
	for range 100 {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			n := play(t, rand.New(rand.NewPCG(seed, 0)), 2_000)
			all.readings, all.old, all.shown = all.readings+n.readings, all.old+n.old, all.shown+n.shown
		})
	}
	t.Logf("%d readings, %d of them old; %d changes shown", all.readings, all.old, all.shown)
	if all.old < all.readings/10 || all.shown < all.readings/20 {
		t.Error("that proves little")
	}
}

func FuzzTree(f *testing.F) {
	f.Add(uint64(1), 100)
	f.Fuzz(func(t *testing.T, seed uint64, readings int) {
		play(t, rand.New(rand.NewPCG(seed, 0)), min(max(readings, 0), 1000))
	})
}

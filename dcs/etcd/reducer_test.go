package etcd

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// A million events, in order and out of it, twice, late, from streams that were given up, lost, between reads under way
// that are older than what came meanwhile: no key ever goes back, and what the store has is what the watch gets to.
func TestRandomEventsMerge(t *testing.T) {
	const events, perWatch = 1_000_000, 10_000
	seed := rand.Uint64()
	t.Logf("seed %#x", seed)
	begin := time.Now()
	total, published, checks := 0, 0, 0
	for n := uint64(0); total < events; n++ {
		r := newRun(t, rand.New(rand.NewPCG(seed, n)))
		for r.events < perWatch && !t.Failed() {
			r.step()
		}
		r.settle()
		if t.Failed() {
			t.Fatalf("in watch %d", n)
		}
		total, published, checks = total+r.events, published+r.published, checks+r.checks
	}
	t.Logf("%d events, %d elements, none stale, the store's state %d times, in %v", total, published, checks, time.Since(begin).Round(time.Millisecond))
}

// run is one watch of a model.
type run struct {
	*model
	t *testing.T
	r *rand.Rand
	w watch

	next   int64 // what the stream sends next
	whole  bool  // the stream, and what came while the last read was under way, have lost nothing and kept their order
	broken bool  // since the last read began that was not so
	answer *result

	last                      dcs.Snapshot
	floor                     map[string]int64 // the last element shows each key as of this revision or later
	events, published, checks int
}

func newRun(t *testing.T, r *rand.Rand) *run {
	s := &run{model: newModel(), t: t, r: r, floor: map[string]int64{}}
	s.w = watch{s: New(clientv3.NewCtxClient(t.Context())), dir: "/d", publish: s.publish}
	s.w.open = func(revision int64) *stream {
		s.next, s.whole = revision, !s.broken
		return &stream{cancel: func() {}, watcher: noWatcher{}}
	}
	s.ask()
	s.serve()
	s.read()
	return s
}

// step is one thing that happens.
func (s *run) step() {
	switch n := s.r.IntN(100); {
	case n < 40:
		s.write(s.r)
	case n < 70:
		s.deliver()
	case n < 76: // late, twice, or by a stream that was given up
		from := 1 + s.r.Int64N(s.next-1)
		s.receive(from, min(s.next-1, from+s.r.Int64N(4)))
	case n < 78: // before others
		if s.revision() > s.next {
			from := s.next + 1 + s.r.Int64N(s.revision()-s.next)
			s.whole, s.broken = false, true
			s.receive(from, from)
		}
	case n < 79: // lost
		if s.w.stream != nil && s.next <= s.revision() {
			s.next, s.whole, s.broken = s.next+1, false, true
		}
	case n < 80: // the stream ends: with an error, or without
		s.respond(clientv3.WatchResponse{Canceled: true, CompactRevision: s.r.Int64N(2)}, s.r.IntN(2) == 0)
	case n < 82: // the server has made it, has nothing to say
		s.respond(clientv3.WatchResponse{Created: s.r.IntN(2) == 0, Header: &pb.ResponseHeader{Revision: s.revision()}}, true)
	case n < 88:
		s.ask()
	case n < 93:
		s.serve()
	case n < 99:
		s.read()
	default:
		s.settle()
		if s.r.IntN(5) == 0 {
			s.restore(1 + s.r.Int64N(s.revision()))
			s.floor = map[string]int64{} // the contract's one exception
			s.last = dcs.Snapshot{}
			s.settle()
		}
	}
}

// deliver sends what is due by the stream.
func (s *run) deliver() {
	if s.w.stream == nil || s.next > s.revision() {
		return
	}
	from := s.next
	s.next = min(s.revision(), from+s.r.Int64N(5)) + 1
	s.receive(from, s.next-1)
	if s.whole && s.next > s.revision() {
		s.same("after every event")
	}
}

func (s *run) receive(from, to int64) {
	resp := clientv3.WatchResponse{Header: &pb.ResponseHeader{Revision: to}}
	for _, revision := range s.history[from : to+1] {
		resp.Events = append(resp.Events, revision...)
	}
	s.events += len(resp.Events)
	s.respond(resp, true)
}

func (s *run) respond(resp clientv3.WatchResponse, ok bool) {
	if err := s.w.received(resp, ok); err != nil {
		s.t.Fatal(err)
	}
}

// A read: asked for, answered by the store, and its answer, which may be late or lost.

func (s *run) ask() {
	if !s.w.reading {
		s.w.reading, s.w.readSeen, s.w.during, s.answer, s.broken = true, s.w.seen, nil, nil, false
	}
}

func (s *run) serve() {
	if s.w.reading && s.answer == nil {
		c := content{at: time.Now(), revision: s.revision(), entries: s.entries()}
		if s.r.IntN(2) == 0 { // it was compared with what was known
			c.snap, c.entries = dcs.NewSnapshot(c.at, c.entries), nil
		}
		s.answer = &result{content: c}
	}
}

func (s *run) read() {
	if s.answer == nil {
		return
	}
	if s.r.IntN(10) == 0 && s.last.Known() {
		s.finish(result{err: errors.New("no answer")})
		return
	}
	s.finish(*s.answer)
}

func (s *run) finish(r result) {
	s.answer = nil
	if err := s.w.read(s.t.Context(), r); err != nil {
		s.t.Fatal(err)
	}
}

// settle is a read of which nothing goes wrong.
func (s *run) settle() {
	if s.w.reading {
		s.serve()
		s.finish(*s.answer)
	}
	s.ask()
	s.serve()
	s.finish(*s.answer)
	s.same("after a read")
}

// same compares the content with the store's.
func (s *run) same(when string) {
	s.checks++
	got, want := slices.Collect(s.last.All("/d")), s.entries()
	if !slices.EqualFunc(got, want, func(a, b dcs.Entry) bool { return a.Key == b.Key && a.Version == b.Version }) || !s.last.Known() {
		s.t.Errorf("%s the content is %v, the store's is %v", when, got, want)
	}
}

// publish takes an element: each key as it once was, and not before what the last element showed.
func (s *run) publish(snap dcs.Snapshot) {
	s.published++
	for _, key := range keys {
		e, ok := snap.Get(key)
		from, there := s.since(key, e, ok, s.floor[key])
		if !there {
			s.t.Errorf("element %d: %s is %v %v, which it was not at revision %d or later", s.published, key, ok, e.Version, s.floor[key])
		}
		s.floor[key] = from
	}
	if snap.At.Before(s.last.At) {
		s.t.Errorf("At went back from %v to %v", s.last.At, snap.At)
	}
	s.last = snap
}

// model is a store with all its past.
type model struct {
	history [][]*clientv3.Event // by revision
	changes map[string][]*mvccpb.KeyValue
}

var keys = []string{"/d/a", "/d/b", "/d/c", "/d/d", "/d/e", "/d/f"}

func newModel() *model {
	return &model{history: make([][]*clientv3.Event, 2), changes: map[string][]*mvccpb.KeyValue{}} // 1 is an empty store
}

func (m *model) revision() int64 { return int64(len(m.history) - 1) }

// write changes one key or two, and at times makes a key again that it removed.
func (m *model) write(r *rand.Rand) {
	rev := m.revision() + 1
	var events []*clientv3.Event
	first := r.IntN(len(keys))
	for i := range 1 + r.IntN(4)/3 {
		key := keys[(first+i)%len(keys)]
		now, there := m.at(key, rev)
		e := &clientv3.Event{Kv: &mvccpb.KeyValue{Key: []byte(key), CreateRevision: rev, ModRevision: rev}}
		if there {
			e.Kv.CreateRevision = now.CreateRevision
			if r.IntN(3) == 0 {
				e.Type, e.Kv.CreateRevision = mvccpb.Event_DELETE, 0
			}
		}
		m.changes[key] = append(m.changes[key], e.Kv)
		events = append(events, e)
	}
	m.history = append(m.history, events)
}

// at is a key as of a revision.
func (m *model) at(key string, revision int64) (kv *mvccpb.KeyValue, there bool) {
	for _, kv := range slices.Backward(m.changes[key]) {
		if kv.ModRevision <= revision {
			return kv, kv.CreateRevision > 0
		}
	}
	return nil, false
}

// since is the first revision not before floor as of which the key was this; false: there is none.
func (m *model) since(key string, e dcs.Entry, there bool, floor int64) (int64, bool) {
	changes := m.changes[key]
	end := m.revision() + 1
	first, found := int64(0), false
	for i := len(changes) - 1; i >= -1 && end > floor; i-- { // from each change to the next one
		begin, alive := int64(0), false
		if i >= 0 {
			begin, alive = changes[i].ModRevision, changes[i].CreateRevision > 0
		}
		if alive == there && (!there || entry(changes[i]).Version == e.Version) {
			first, found = max(begin, floor), true
		}
		end = begin
	}
	return first, found
}

// entries is what there is.
func (m *model) entries() (all []dcs.Entry) {
	for _, key := range keys {
		if kv, there := m.at(key, m.revision()); there {
			all = append(all, entry(kv))
		}
	}
	return all
}

// restore forgets what came after a revision.
func (m *model) restore(revision int64) {
	m.history = m.history[:revision+1]
	for key, changes := range m.changes {
		for len(changes) > 0 && changes[len(changes)-1].ModRevision > revision {
			changes = changes[:len(changes)-1]
		}
		m.changes[key] = changes
	}
}

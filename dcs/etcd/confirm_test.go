package etcd_test

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/embedded"
	"github.com/pgconvoy/pgconvoy/dcs/etcd"
	"github.com/pgconvoy/pgconvoy/internal/leak"
	"github.com/pgconvoy/pgconvoy/internal/storetest"
)

// wire is a client's connection that loses the events of keys with "lost" in their names, and nothing else. It counts
// reads: of keys alone, with values, and of single keys by transactions.
type wire struct {
	page                        int64 // keys of an answer at most; zero: as many as were asked for
	lists, reads, fetches, lost atomic.Int64
}

func (w *wire) options(c *clientv3.Config) {
	c.DialOptions = append(c.DialOptions,
		grpc.WithChainUnaryInterceptor(
			func(ctx context.Context, m string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, o ...grpc.CallOption) error {
				switch r := req.(type) {
				case *pb.RangeRequest:
					if w.page > 0 {
						r.Limit = min(r.Limit, w.page)
					}
					if r.KeysOnly {
						w.lists.Add(1)
					} else {
						w.reads.Add(1)
					}
				case *pb.TxnRequest:
					w.fetches.Add(1)
				}
				return next(ctx, m, req, reply, cc, o...)
			}),
		grpc.WithChainStreamInterceptor(
			func(ctx context.Context, s *grpc.StreamDesc, cc *grpc.ClientConn, m string, next grpc.Streamer, o ...grpc.CallOption) (grpc.ClientStream, error) {
				cs, err := next(ctx, s, cc, m, o...)
				return lossy{cs, w}, err
			}))
}

type lossy struct {
	grpc.ClientStream
	w *wire
}

func (l lossy) RecvMsg(m any) error {
	err := l.ClientStream.RecvMsg(m)
	if resp, ok := m.(*pb.WatchResponse); ok && err == nil {
		var events []*mvccpb.Event
		for _, e := range resp.Events {
			if bytes.Contains(e.Kv.Key, []byte("lost")) {
				l.w.lost.Add(1)
			} else {
				events = append(events, e)
			}
		}
		resp.Events = events
	}
	return err
}

func connectBy(t *testing.T, w *wire, s *embedded.Server) *etcd.Store {
	store := connect(t, []netip.AddrPort{address(s)}, w.options)
	store.Reconfirm = 50 * time.Millisecond
	return store
}

// confirmed waits for elements that were confirmed by lists which began from now on.
func (w *wire) confirmed(t *testing.T, f *storetest.Follower) {
	t.Helper()
	for range 2 { // one may be under way
		lists, at := w.lists.Load(), f.Last.At
		f.Until("confirmed", func(s dcs.Snapshot) bool { return w.lists.Load() > lists && s.At.After(at) })
	}
}

func TestConfirmationReadsKeysAlone(t *testing.T) {
	leak.Check(t)
	s := start(t, embedded.Config{})
	w := new(wire)
	store := connectBy(t, w, s)
	storetest.Put(t, s.Store(), "k", "0", dcs.Version{})
	f := storetest.Follow(t, store)
	f.Until("fresh", storetest.Fresh("k=0"))
	w.confirmed(t, f)
	reads, fetches := w.reads.Load(), w.fetches.Load()
	for range 5 {
		w.confirmed(t, f)
	}
	if r, f := w.reads.Load()-reads, w.fetches.Load()-fetches; r+f > 0 {
		t.Errorf("%d reads and %d transactions while nothing changed", r, f)
	}
}

// What events should have told and did not is found, also behind later events that came.
func TestConfirmationFindsWhatEventsDidNotTell(t *testing.T) {
	leak.Check(t)
	s := start(t, embedded.Config{})
	w := new(wire)
	store := connectBy(t, w, s)
	k := storetest.Put(t, s.Store(), "k", "0", dcs.Version{})
	f := storetest.Follow(t, store)
	f.Until("fresh", storetest.Fresh("k=0"))
	w.confirmed(t, f)
	reads := w.reads.Load()
	turn := 0
	told := func(want string) { // by an event, after the one that was lost
		t.Helper()
		turn++
		k = storetest.Put(t, s.Store(), "k", fmt.Sprint(turn), k)
		f.Until("repaired", storetest.Fresh(strings.TrimSpace(fmt.Sprintf("k=%d %s", turn, want))))
	}
	v := storetest.Put(t, s.Store(), "lost", "new", dcs.Version{})
	told("lost=new")
	v = storetest.Put(t, s.Store(), "lost", "written", v)
	told("lost=written")
	for i := range 50 {
		v = storetest.Put(t, s.Store(), "lost", fmt.Sprint(i), v)
	}
	told("lost=49")
	if err := s.Store().Delete(t.Context(), dir+"/lost", v); err != nil {
		t.Fatal(err)
	}
	v = storetest.Put(t, s.Store(), "lost", "again", dcs.Version{})
	told("lost=again")
	if e, _ := f.Last.Get(dir + "/lost"); e.Version != v {
		t.Errorf("version %v, want %v", e.Version, v)
	}
	if err := s.Store().Delete(t.Context(), dir+"/lost", v); err != nil {
		t.Fatal(err)
	}
	told("")
	if w.lost.Load() < 50 {
		t.Errorf("%d events were lost", w.lost.Load())
	}
	if n := w.reads.Load() - reads; n > 0 {
		t.Errorf("%d reads of everything", n)
	}
}

// A directory of several pages: at first, while it changes, and when more has changed than is worth asking for by name.
func TestWatchOfALargeDirectory(t *testing.T) {
	leak.Check(t)
	s := start(t, embedded.Config{})
	w := &wire{page: 500} // as if it were a hundred times as large
	store := connectBy(t, w, s)
	const n = 5_200
	write := func(from, to int, value string) {
		t.Helper()
		var ops []clientv3.Op
		for i := from; i < to; i++ {
			if ops = append(ops, clientv3.OpPut(fmt.Sprintf("%s/lost-%05d", dir, i), value)); len(ops) == 100 || i == to-1 {
				if _, err := s.Client().Txn(t.Context()).Then(ops...).Commit(); err != nil {
					t.Fatal(err)
				}
				ops = nil
			}
		}
	}
	same := func(s dcs.Snapshot) bool {
		now, err := store.Get(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		for range s.Changed(now) {
			return false
		}
		return s.Stale == nil && s.Known()
	}
	write(0, n, "0")
	f := storetest.Follow(t, store)
	f.Until("complete", same)
	count := 0
	for range f.Last.All(dir) {
		count++
	}
	if count != n {
		t.Fatalf("%d keys, want %d", count, n)
	}
	w.confirmed(t, f)
	reads, fetches := w.reads.Load(), w.fetches.Load()
	write(450, 550, "1")
	write(n-1, n+150, "1")
	if _, err := s.Client().Delete(t.Context(), dir+"/lost-00000"); err != nil {
		t.Fatal(err)
	}
	w.confirmed(t, f)
	if got := w.reads.Load() - reads; got > 0 || w.fetches.Load()-fetches < 3 {
		t.Errorf("%d reads, %d transactions", got, w.fetches.Load()-fetches)
	}
	if !same(f.Last) {
		t.Error("a confirmed content is not the store's")
	}
	reads = w.reads.Load()
	write(0, n, "2")
	f.Until("complete", same)
	if w.reads.Load() == reads {
		t.Error("all has changed, and was asked for by name")
	}
}

// All that a watch does needs the right to read below its directory, and no other.
func TestConfirmationByAReader(t *testing.T) {
	leak.Check(t)
	s := start(t, embedded.Config{})
	c, ctx := s.Client(), t.Context()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.RoleAdd(ctx, "reader"))
	must(c.RoleGrantPermission(ctx, "reader", dir+"/", clientv3.GetPrefixRangeEnd(dir+"/"), clientv3.PermissionType(clientv3.PermRead)))
	must(c.UserAdd(ctx, "root", "secret-r"))
	must(c.UserGrantRole(ctx, "root", "root"))
	must(c.UserAdd(ctx, "reader", "secret-u"))
	must(c.UserGrantRole(ctx, "reader", "reader"))
	must(c.AuthEnable(ctx))
	as := func(user, password string, w *wire) *etcd.Store {
		return connect(t, []netip.AddrPort{address(s)}, w.options, func(c *clientv3.Config) { c.Username, c.Password = user, password })
	}
	w := new(wire)
	reader, root := as("reader", "secret-u", w), as("root", "secret-r", new(wire))
	reader.Reconfirm = 50 * time.Millisecond
	storetest.Put(t, root, "k", "0", dcs.Version{})
	f := storetest.Follow(t, reader)
	f.Until("fresh", storetest.Fresh("k=0"))
	w.confirmed(t, f)
	reads := w.reads.Load()
	storetest.Put(t, root, "lost", "1", dcs.Version{})
	f.Until("repaired", storetest.Fresh("k=0 lost=1"))
	if w.reads.Load() != reads {
		t.Error("everything was read")
	}
}

// Two stores that began as copies of one: the same cluster by its id, the same revisions, and other values. Only a
// connection that is lost tells that another one answers.
func TestWatchOfAStoreThatWasReplacedByATwin(t *testing.T) {
	leak.Check(t)
	dirs := []string{t.TempDir(), t.TempDir()}
	s, err := embedded.Start(t.Context(), embedded.Config{Dir: dirs[0], NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	v := storetest.Put(t, s.Store(), "k", "common", dcs.Version{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dirs[1], os.DirFS(dirs[0])); err != nil {
		t.Fatal(err)
	}
	var twins []*embedded.Server
	for i, value := range []string{"this", "that"} {
		twins = append(twins, start(t, embedded.Config{Dir: dirs[i], NoSync: true}))
		storetest.Put(t, twins[i].Store(), "k", value, v)
	}
	p := path(t, twins[0])
	w := new(wire)
	store := connect(t, p.Addrs(), w.options)
	store.Reconfirm = 50 * time.Millisecond
	f := storetest.Follow(t, store)
	f.Until("fresh", storetest.Fresh("k=this"))
	w.confirmed(t, f)
	was := f.Last
	p[0].Lead(address(twins[1]))
	f.Until("the twin's", storetest.Fresh("k=that"))
	a, _ := was.Get(dir + "/k")
	b, _ := f.Last.Get(dir + "/k")
	if a.Version != b.Version {
		t.Fatalf("versions are %v and %v: nothing was tested", a.Version, b.Version)
	}
	if changed := slices.Collect(f.Last.Changed(was)); !slices.Equal(changed, []string{dir + "/k"}) {
		t.Errorf("changed is %v", changed)
	}
}

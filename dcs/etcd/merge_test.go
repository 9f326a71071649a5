package etcd

import (
	"fmt"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// A read and the events that come while it is under way may arrive in any order. steps are "put k 5" and "del k 6"
// (events, by revision), "ask" (a read begins) and "read 5 k1=2 k2=5" (its answer, as of a revision).
func TestReadsAndEventsMerge(t *testing.T) {
	for name, c := range map[string]struct {
		steps []string
		want  string
	}{
		"event after the read":              {[]string{"ask", "read 5 a=3", "put a 6"}, "a=6"},
		"event overtakes the read":          {[]string{"ask", "read 5 a=3", "ask", "put a 7", "read 6 a=3 b=6"}, "a=7 b=6"},
		"removal overtakes the read":        {[]string{"ask", "read 5 a=3", "ask", "del a 7", "read 6 a=3"}, ""},
		"read overtakes the event":          {[]string{"ask", "read 5 a=3", "ask", "read 7 a=7", "put a 6", "put a 7"}, "a=7"},
		"read overtakes the removal":        {[]string{"ask", "read 5 a=3", "ask", "read 7 a=7", "del a 6"}, "a=7"},
		"read repairs a lost event":         {[]string{"ask", "read 5 a=3", "ask", "read 8 b=8"}, "b=8"},
		"removed and made again":            {[]string{"ask", "read 5 a=3", "del a 6", "put a 7"}, "a=7"},
		"event that is late by a lot":       {[]string{"ask", "read 5 a=3", "put a 8", "put a 7", "del a 6"}, "a=8"},
		"two keys of one transaction":       {[]string{"ask", "read 5", "put a 6", "put b 6"}, "a=6 b=6"},
		"store replaced by an older copy":   {[]string{"ask", "read 9 a=9", "ask", "read 4 a=4"}, "a=4"},
		"and the event of the other's past": {[]string{"ask", "read 9 a=9", "put a 12", "ask", "read 4 a=4", "put a 4"}, "a=4"},
	} {
		t.Run(name, func(t *testing.T) {
			w := watch{s: &Store{}, dir: "/d", publish: func(dcs.Snapshot) {}}
			w.open = func(int64) *stream { // streams are not the subject
				return &stream{cancel: func() {}, watcher: noWatcher{}}
			}
			for _, step := range c.steps {
				if err := play(t, &w, step); err != nil {
					t.Fatal(err)
				}
			}
			var got []string
			for e := range w.snap.All("/d") {
				got = append(got, fmt.Sprintf("%s=%d", e.Key[3:], e.Version.Modified))
			}
			if got := strings.Join(got, " "); got != c.want {
				t.Errorf("content is %q, want %q", got, c.want)
			}
		})
	}
}

type noWatcher struct{ clientv3.Watcher }

func (noWatcher) Close() error { return nil }

func play(t *testing.T, w *watch, step string) error {
	words := strings.Fields(step)
	rev := func(s string) (n int64) {
		if _, err := fmt.Sscan(s, &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	switch words[0] {
	case "ask":
		w.reading, w.readSeen, w.during = true, w.seen, nil
		return nil
	case "read":
		c := content{at: time.Now(), revision: rev(words[1])}
		for _, pair := range words[2:] {
			k, v, _ := strings.Cut(pair, "=")
			c.entries = append(c.entries, entry(&mvccpb.KeyValue{Key: []byte("/d/" + k), CreateRevision: 1, ModRevision: rev(v)}))
		}
		return w.read(t.Context(), result{content: c})
	default:
		e := &clientv3.Event{Kv: &mvccpb.KeyValue{Key: []byte("/d/" + words[1]), CreateRevision: 1, ModRevision: rev(words[2])}}
		if words[0] == "del" {
			e.Type = mvccpb.Event_DELETE
		}
		return w.received(clientv3.WatchResponse{Header: &pb.ResponseHeader{Revision: e.Kv.ModRevision}, Events: []*clientv3.Event{e}}, true)
	}
}

// A stream that begins behind the store is replaced after another read, for a bounded number of times.
func TestStreamThatBeginsBehind(t *testing.T) {
	opened := 0
	w := watch{s: &Store{}, dir: "/d", publish: func(dcs.Snapshot) {}}
	w.open = func(int64) *stream {
		opened++
		return &stream{cancel: func() {}, watcher: noWatcher{}}
	}
	created := func(revision int64) clientv3.WatchResponse {
		return clientv3.WatchResponse{Created: true, Header: &pb.ResponseHeader{Revision: revision}}
	}
	for round := range maxRestarts {
		if err := play(t, &w, fmt.Sprintf("read %d a=3", 5+round)); err != nil {
			t.Fatal(err)
		}
		if err := w.received(created(int64(6+round)), true); err != nil {
			t.Fatal(err)
		}
		if w.stream != nil || w.readAt.After(time.Now()) {
			t.Fatalf("round %d: a stream that begins behind was kept, or no read is due", round)
		}
	}
	for _, revision := range []int64{30, 20} { // behind once too often; not behind
		if err := play(t, &w, "read 20 a=3"); err != nil {
			t.Fatal(err)
		}
		if err := w.received(created(revision), true); err != nil {
			t.Fatal(err)
		}
		if w.stream == nil {
			t.Error("a stream was not kept")
		}
	}
	if opened != maxRestarts+1 {
		t.Errorf("%d streams were opened, want %d", opened, maxRestarts+1)
	}
}

// Events are not relied on: whatever they tell, everything is compared again within Reconfirm.
func TestReadsAreRepeated(t *testing.T) {
	w := watch{s: &Store{Reconfirm: time.Minute}, dir: "/d", publish: func(dcs.Snapshot) {}}
	w.open = func(int64) *stream { return &stream{cancel: func() {}, watcher: noWatcher{}} }
	for _, step := range []string{"ask", "read 5 a=3", "put a 6", "ask", "read 9 a=8"} {
		if err := play(t, &w, step); err != nil {
			t.Fatal(err)
		}
		if d := time.Until(w.readAt); w.snap.Known() && !w.reading && (w.readAt.IsZero() || d > time.Minute) {
			t.Errorf("after %q: the next read is due in %v (at %v)", step, d, w.readAt)
		}
	}
}

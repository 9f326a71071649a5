package zookeeper

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/pgconvoy/pgconvoy/dcs"
)

type silent struct{}

func (silent) Printf(string, ...any) {}

// closedConn checks paths and does nothing else.
func closedConn(t testing.TB) *zk.Conn {
	t.Helper()
	conn, events, err := zk.Connect([]string{"127.0.0.1:1"}, time.Second, zk.WithLogger(silent{}))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	for range events {
	}
	return conn
}

// What is accepted as a key is a path to the client, below any root, and comes back as it was.
func FuzzPath(f *testing.F) {
	for _, key := range []string{
		"/a", "/service/demo/members/n 1", "/a/..b", "/\u0085", "/\U0001F600", "/\uffff", "/a/b\uf8ff", "/ü/日本",
	} {
		f.Add("", key)
		f.Add("/root/of mine", key)
	}
	conn := closedConn(f)
	f.Fuzz(func(t *testing.T, root, key string) {
		s := Store{Root: root}
		if s.check("key", key) != nil {
			return
		}
		if _, _, err := conn.Exists(root + key); errors.Is(err, zk.ErrInvalidPath) {
			t.Errorf("accepted, and no path: %q", root+key)
		}
		above, name := parent(key), key[strings.LastIndex(key, "/")+1:]
		if strings.TrimSuffix(above, "/")+"/"+name != key {
			t.Errorf("%q is %q below %q", key, name, above)
		}
	})
}

// A node is a key with its own value and version, or none.
func FuzzEntry(f *testing.F) {
	f.Add([]byte("x"), false, int32(0), int64(1), int32(0))
	f.Add([]byte{}, false, int32(2), int64(7), int32(-5))
	f.Add([]byte{}, true, int32(0), int64(7), int32(1))
	f.Fuzz(func(t *testing.T, value []byte, null bool, children int32, czxid int64, ver int32) {
		if value == nil {
			value = []byte{}
		}
		if null {
			value = nil
		}
		stat := &zk.Stat{Czxid: czxid, Version: ver, NumChildren: children}
		e, ok := reading{data: value, stat: stat}.entry("/k")
		if want := value != nil && (len(value) > 0 || children == 0); ok != want {
			t.Fatalf("%q with %d below: a key: %v", value, children, ok)
		}
		if !ok {
			return
		}
		if e.Key != "/k" || !bytes.Equal(e.Value, value) || e.Version != version(stat) {
			t.Errorf("%+v", e)
		}
		if int64(e.Version.Created) != czxid || int32(e.Version.Modified) != ver || e.Version.Modified>>32 != 0 {
			t.Errorf("version %v of czxid %d, version %d", e.Version, czxid, ver)
		}
	})
}

func TestErrorsSayWhatIsKnown(t *testing.T) {
	s := &Store{}
	for _, c := range []struct {
		err   error
		is    error
		words string
	}{
		{zk.ErrBadVersion, dcs.ErrConflict, "not applied"},
		{zk.ErrNoNode, dcs.ErrConflict, "not applied"},
		{zk.ErrNodeExists, dcs.ErrConflict, "not applied"},
		{zk.ErrNoAuth, zk.ErrNoAuth, "not applied"},
		{zk.ErrNotEmpty, zk.ErrNotEmpty, "keys are below it"},
		{zk.ErrNoChildrenForEphemerals, zk.ErrNoChildrenForEphemerals, "belongs to a lease"},
		{zk.ErrNoServer, zk.ErrNoServer, "not applied"},
		{zk.ErrSessionExpired, zk.ErrSessionExpired, "not applied"},
		{unsent{zk.ErrConnectionClosed}, zk.ErrConnectionClosed, "not applied"},
		{zk.ErrConnectionClosed, dcs.ErrUnknown, "outcome unknown"},
		{errors.New("write: broken pipe"), dcs.ErrUnknown, "outcome unknown"},
		{errors.New("unknown error: -7"), dcs.ErrUnknown, "outcome unknown"},
	} {
		err := s.writeError("put", "/d/k", c.err)
		unknown := errors.Is(c.is, dcs.ErrUnknown)
		if !errors.Is(err, c.is) || errors.Is(err, dcs.ErrUnknown) != unknown ||
			!strings.Contains(err.Error(), c.words) || !strings.Contains(err.Error(), "/d/k") {
			t.Errorf("%v: %v", c.err, err)
		}
	}
}

package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/embedded"
	"github.com/pgconvoy/pgconvoy/dcs/etcd"
	"github.com/pgconvoy/pgconvoy/internal/leak"
)

const dir = "/demo"

// connect returns a store over a client of its own.
func connect(t testing.TB, endpoint string, change ...func(*clientv3.Config)) *etcd.Store {
	t.Helper()
	c := clientv3.Config{Endpoints: []string{endpoint}, Logger: zap.NewNop()}
	for _, f := range change {
		f(&c)
	}
	client, err := clientv3.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return etcd.New(client)
}

// follower runs a watch and remembers its elements.
type follower struct {
	t    testing.TB
	c    <-chan dcs.Snapshot
	last dcs.Snapshot
}

func follow(t testing.TB, s dcs.Reader) *follower {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c, wait := dcs.Latest(s.Watch(ctx, dir))
	t.Cleanup(func() {
		cancel()
		if err := wait(); !errors.Is(err, context.Canceled) {
			t.Errorf("watch ended with %v", err)
		}
	})
	return &follower{t: t, c: c}
}

// until waits for an element, and says how long it took.
func (f *follower) until(within time.Duration, what string, ok func(dcs.Snapshot) bool) time.Duration {
	f.t.Helper()
	begin, timeout := time.Now(), time.After(within)
	for {
		select {
		case s, open := <-f.c:
			if !open {
				f.t.Fatalf("watch ended while waiting until it is %s", what)
			}
			if s.At.Before(f.last.At) {
				f.t.Errorf("At went back from %v to %v", f.last.At, s.At)
			}
			if f.last = s; ok(s) {
				d := time.Since(begin)
				f.t.Logf("%s after %v", what, d.Round(10*time.Microsecond))
				return d
			}
		case <-timeout:
			f.t.Fatalf("not %s within %v; it is %v, known %v, stale: %v", what, within, content(f.last), f.last.Known(), f.last.Stale)
		}
	}
}

func stale(s dcs.Snapshot) bool { return s.Stale != nil }

func fresh(want string) func(dcs.Snapshot) bool {
	return func(s dcs.Snapshot) bool { return s.Known() && s.Stale == nil && content(s) == want }
}

func content(s dcs.Snapshot) string {
	var b strings.Builder
	for e := range s.All(dir) {
		fmt.Fprintf(&b, "%s=%s ", e.Key[len(dir)+1:], e.Value)
	}
	return strings.TrimSpace(b.String())
}

func put(t testing.TB, s dcs.Writer, name, value string, prev dcs.Version) dcs.Version {
	t.Helper()
	v, err := s.Put(t.Context(), dir+"/"+name, []byte(value), prev)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestWatchOfAServerThatWasNeverThere(t *testing.T) {
	leak.Check(t)
	p := newProxy(t, "http://127.0.0.1:1")
	f := follow(t, connect(t, p.Endpoint()))
	f.until(2*time.Second, "stale", stale)
	if f.last.Known() {
		t.Error("known without a confirmation")
	}
	if !strings.Contains(f.last.Stale.Error(), "no connection to ["+p.Endpoint()+"]") {
		t.Errorf("the reason does not say what is wrong: %v", f.last.Stale)
	}
}

func TestWatchSurvivesARestart(t *testing.T) {
	leak.Check(t)
	c := embedded.Config{Dir: t.TempDir(), NoSync: true}
	s, err := embedded.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	p := newProxy(t, s.Endpoint()) // keeps the address although the server gets another port
	store := connect(t, p.Endpoint())
	v := put(t, store, "k", "1", dcs.Version{})
	f := follow(t, store)
	f.until(5*time.Second, "fresh", fresh("k=1"))
	at := f.last.At

	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	f.until(5*time.Second, "stale", stale)
	if content(f.last) != "k=1" || !f.last.At.Equal(at) {
		t.Errorf("stale content is %q of %v, confirmed was k=1 of %v", content(f.last), f.last.At, at)
	}
	if s, err = embedded.Start(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	p.target = strings.TrimPrefix(s.Endpoint(), "http://")
	p.mu.Unlock()
	f.until(5*time.Second, "fresh again", fresh("k=1"))
	if e, _ := f.last.Get(dir + "/k"); e.Version != v {
		t.Errorf("version is %v, was %v", e.Version, v)
	}
	put(t, store, "k", "2", v)
	f.until(5*time.Second, "following again", fresh("k=2"))
}

func TestWatchSurvivesAnOutageOfMinutes(t *testing.T) {
	// gRPC's own wait before it connects again grows to two minutes. A dozen seconds without a server make it long
	// enough to tell ours from it.
	if testing.Short() {
		t.Skip("takes 15 s")
	}
	leak.Check(t)
	s := start(t, embedded.Config{})
	p := newProxy(t, s.Endpoint())
	f := follow(t, connect(t, p.Endpoint()))
	f.until(5*time.Second, "fresh", fresh(""))
	p.Cut(true)
	f.until(5*time.Second, "stale", stale)
	<-time.After(12 * time.Second) // the length of the outage is the subject
	put(t, s.Store(), "k", "1", dcs.Version{})
	p.Cut(false)
	f.until(2*time.Second, "fresh again", fresh("k=1"))
}

func TestWatchSurvivesCompaction(t *testing.T) {
	leak.Check(t)
	s := start(t, embedded.Config{})
	p := newProxy(t, s.Endpoint())
	f := follow(t, connect(t, p.Endpoint()))
	gone := put(t, s.Store(), "gone", "1", dcs.Version{})
	f.until(5*time.Second, "fresh", fresh("gone=1"))
	p.Cut(true)
	if err := s.Store().Delete(t.Context(), dir+"/gone", gone); err != nil {
		t.Fatal(err)
	}
	v := put(t, s.Store(), "k", "0", dcs.Version{})
	for i := range 20 {
		v = put(t, s.Store(), "k", fmt.Sprint(i), v)
	}
	if _, err := s.Client().Compact(t.Context(), int64(v.Modified), clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	p.Cut(false)
	f.until(5*time.Second, "fresh", fresh("k=19"))
	put(t, s.Store(), "k", "20", v)
	f.until(5*time.Second, "following", fresh("k=20"))
}

func TestWatchNoticesSilence(t *testing.T) {
	leak.Check(t)
	s := start(t, embedded.Config{})
	p := newProxy(t, s.Endpoint())
	store := connect(t, p.Endpoint())
	store.Reconfirm = 200 * time.Millisecond
	f := follow(t, store)
	f.until(5*time.Second, "fresh", fresh(""))
	p.Freeze(true)
	f.until(3*time.Second, "stale", stale)
	put(t, s.Store(), "k", "1", dcs.Version{})
	p.Freeze(false)
	f.until(3*time.Second, "fresh", fresh("k=1"))
}

// deaf makes watch streams hear nothing after they were made, while reads work: a server that is cut off, behind a
// connection that does not know it.
type deaf struct {
	grpc.ClientStream
	heard int
	made  chan struct{} // closed when the server has made the watch
}

func (d *deaf) RecvMsg(m any) error {
	if d.heard++; d.heard > 1 {
		<-d.Context().Done()
		return d.Context().Err()
	}
	defer close(d.made)
	return d.ClientStream.RecvMsg(m)
}

func TestWatchReplacesADeafStream(t *testing.T) {
	leak.Check(t)
	s := start(t, embedded.Config{})
	first := true // streams are opened one after the other
	made := make(chan struct{})
	store := connect(t, s.Endpoint(), func(c *clientv3.Config) {
		c.DialOptions = append(c.DialOptions, grpc.WithChainStreamInterceptor(
			func(ctx context.Context, d *grpc.StreamDesc, cc *grpc.ClientConn, m string, next grpc.Streamer, o ...grpc.CallOption) (grpc.ClientStream, error) {
				cs, err := next(ctx, d, cc, m, o...)
				if first && err == nil && strings.HasSuffix(m, "/Watch") {
					first = false
					cs = &deaf{ClientStream: cs, made: made}
				}
				return cs, err
			}))
	})
	store.Reconfirm = 2 * time.Second
	store.Timeout = 500 * time.Millisecond
	f := follow(t, store)
	f.until(5*time.Second, "fresh", fresh(""))
	select { // a stream that begins behind would be replaced at once, deaf or not
	case <-made:
	case <-time.After(5 * time.Second):
		t.Fatal("no watch was made")
	}
	v := put(t, s.Store(), "k", "1", dcs.Version{})
	if d := f.until(5*time.Second, "repaired by a read", fresh("k=1")); d < 300*time.Millisecond {
		t.Fatalf("the stream was not deaf: %v", d)
	}
	at := f.last.At
	f.until(5*time.Second, "confirmed", func(s dcs.Snapshot) bool { return s.At.After(at) })
	put(t, s.Store(), "k", "2", v)
	if d := f.until(5*time.Second, "following", fresh("k=2")); d > time.Second {
		t.Errorf("a change took %v: the deaf stream is still in use", d)
	}
}

func TestWatchOfAStoreThatWasReplaced(t *testing.T) {
	leak.Check(t)
	first := start(t, embedded.Config{})
	p := newProxy(t, first.Endpoint())
	store := connect(t, p.Endpoint())
	store.Reconfirm = time.Hour // losing the connection is what makes it look again
	v := put(t, store, "k", "0", dcs.Version{})
	for range 20 {
		v = put(t, store, "k", "old", v)
	}
	f := follow(t, store)
	f.until(5*time.Second, "fresh", fresh("k=old"))

	second := start(t, embedded.Config{})
	put(t, second.Store(), "other", "new", dcs.Version{})
	p.mu.Lock()
	p.target = strings.TrimPrefix(second.Endpoint(), "http://")
	p.mu.Unlock()
	p.Cut(false) // ends the connections
	f.until(5*time.Second, "the new store's", fresh("other=new"))
	put(t, second.Store(), "another", "new", dcs.Version{})
	f.until(5*time.Second, "following the new store", fresh("another=new other=new"))
}

func TestWatchEndsWhenItIsHopeless(t *testing.T) {
	leak.Check(t)
	s := start(t, embedded.Config{})
	c := s.Client()
	ctx := t.Context()
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
	as := func(user, password string) *etcd.Store {
		return connect(t, s.Endpoint(), func(c *clientv3.Config) { c.Username, c.Password = user, password })
	}
	last := func(s dcs.Reader, dir string) error {
		t.Helper()
		for snap, err := range s.Watch(ctx, dir) {
			if err != nil {
				return err
			}
			t.Fatalf("got %v, stale %v", content(snap), snap.Stale)
		}
		return nil
	}

	reader := as("reader", "secret-u")
	f := follow(t, reader)
	f.until(5*time.Second, "fresh with read rights alone", fresh(""))
	for what, err := range map[string]error{
		"foreign directory": last(reader, "/other"),
		"no credentials":    last(connect(t, s.Endpoint()), dir),
	} {
		if err == nil || !strings.HasPrefix(err.Error(), "etcd: read /") || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := reader.Put(ctx, dir+"/k", nil, dcs.Version{})
	if err == nil || errors.Is(err, dcs.ErrUnknown) || !strings.Contains(err.Error(), "not applied") {
		t.Errorf("put without the right: %v", err)
	}
	put(t, as("root", "secret-r"), "k", "1", dcs.Version{})
	f.until(5*time.Second, "following with read rights alone", fresh("k=1"))
}

func TestWatchEndsWithItsClient(t *testing.T) {
	leak.Check(t)
	s := start(t, embedded.Config{})
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{s.Endpoint()}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	var last error
	for _, last = range etcd.New(client).Watch(t.Context(), dir) {
		if last == nil {
			_ = client.Close()
		}
	}
	if last == nil || !strings.Contains(last.Error(), "closed") {
		t.Errorf("ended with %v", last)
	}
}

func TestWatchLeftAtAnyMoment(t *testing.T) {
	leak.Check(t)
	s := start(t, embedded.Config{})
	p := newProxy(t, s.Endpoint())
	store := connect(t, p.Endpoint())
	put(t, store, "k", "1", dcs.Version{})
	// The client stays open: what a watch leaves behind must not wait for its end.
	leak.Check(t, "pgconvoy/dcs/etcd.", "etcd/client/v3.(*watch")
	for i := range 60 {
		if i == 40 {
			p.Cut(true) // and without a server
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%20)*time.Millisecond)
		begin := time.Now()
		var last error
		for _, err := range store.Watch(ctx, dir) {
			last = err
		}
		cancel()
		if !errors.Is(last, context.DeadlineExceeded) {
			t.Fatalf("round %d ended with %v", i, last)
		}
		if d := time.Since(begin); d > time.Second {
			t.Errorf("round %d took %v", i, d)
		}
	}
}

func TestWatchLeftWithoutAServer(t *testing.T) {
	leak.Check(t)
	s := start(t, embedded.Config{})
	p := newProxy(t, s.Endpoint())
	store := connect(t, p.Endpoint())
	leak.Check(t, "pgconvoy/dcs/etcd.", "etcd/client/v3.(*watch") // while the client stays open
	for snap, err := range store.Watch(t.Context(), dir) {
		if err != nil {
			t.Fatal(err)
		}
		if stale(snap) {
			break
		}
		p.Cut(true)
	}
}

func TestLeaseIsLostInTime(t *testing.T) {
	leak.Check(t)
	s := start(t, embedded.Config{})
	for name, fault := range map[string]func(*proxy){
		"connection cut":   func(p *proxy) { p.Cut(true) },
		"answers withheld": func(p *proxy) { p.Freeze(true) },
	} {
		t.Run(name, func(t *testing.T) {
			p := newProxy(t, s.Endpoint())
			store := connect(t, p.Endpoint())
			store.TTL = 2 * time.Second
			err := store.Lease(t.Context(), func(ctx context.Context, w dcs.Writer) error {
				put(t, w, "k", "1", dcs.Version{})
				begin := time.Now()
				fault(p)
				<-ctx.Done()
				t.Logf("lost after %v: %v", time.Since(begin).Round(time.Millisecond), context.Cause(ctx))
				if snap, err := s.Store().Get(t.Context(), dir); err != nil || content(snap) != "k=1" {
					t.Errorf("the key is gone already: %q, %v", content(snap), err)
				}
				return ctx.Err()
			})
			if !errors.Is(err, dcs.ErrLeaseLost) {
				t.Errorf("lease ended with %v", err)
			}
			f := follow(t, s.Store())
			f.until(10*time.Second, "given away", fresh(""))
		})
	}
}

func TestLeaseOutlivesShortTrouble(t *testing.T) {
	leak.Check(t)
	s := start(t, embedded.Config{})
	p := newProxy(t, s.Endpoint())
	store := connect(t, p.Endpoint())
	store.TTL = 2 * time.Second
	err := store.Lease(t.Context(), func(ctx context.Context, w dcs.Writer) error {
		put(t, w, "k", "1", dcs.Version{})
		p.Cut(true)
		trouble := time.After(800 * time.Millisecond)
		healed := time.After(4 * time.Second) // twice the TTL
		for {
			select {
			case <-trouble:
				p.Cut(false)
			case <-healed:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	})
	if err != nil {
		t.Error(err)
	}
}

func TestLeaseThatTheServerEnded(t *testing.T) {
	leak.Check(t)
	s := start(t, embedded.Config{})
	store := s.Store()
	store.TTL = time.Second
	err := store.Lease(t.Context(), func(ctx context.Context, _ dcs.Writer) error {
		all, err := s.Client().Leases(ctx)
		if err != nil {
			return err
		}
		for _, l := range all.Leases {
			if _, err := s.Client().Revoke(ctx, l.ID); err != nil {
				return err
			}
		}
		<-ctx.Done()
		return context.Cause(ctx)
	})
	if !errors.Is(err, dcs.ErrLeaseLost) {
		t.Errorf("lease ended with %v", err)
	}
}

func TestLeaseNeedsASecond(t *testing.T) {
	store := connect(t, "http://127.0.0.1:1")
	store.TTL = time.Millisecond
	if err := store.Lease(t.Context(), nil); !errors.Is(err, dcs.ErrInvalid) {
		t.Error(err)
	}
}

// A write whose answer is lost was applied here, and must not be called anything but unknown.
func TestWriteWithoutAnAnswer(t *testing.T) {
	leak.Check(t)
	s := start(t, embedded.Config{})
	for name, fault := range map[string]struct {
		begin, end func(*proxy)
	}{
		"deadline":   {func(p *proxy) { p.Freeze(true) }, nil},
		"connection": {func(p *proxy) { p.Freeze(true) }, func(p *proxy) { p.Cut(true) }},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProxy(t, s.Endpoint())
			store := connect(t, p.Endpoint())
			store.Timeout = 500 * time.Millisecond
			v := put(t, store, name, "1", dcs.Version{})
			f := follow(t, s.Store())
			fault.begin(p)
			failed := make(chan error, 1)
			go func() {
				_, err := store.Put(t.Context(), dir+"/"+name, []byte("2"), v)
				failed <- err
			}()
			f.until(5*time.Second, "written", func(s dcs.Snapshot) bool {
				e, _ := s.Get(dir + "/" + name)
				return string(e.Value) == "2"
			})
			if fault.end != nil {
				fault.end(p)
			}
			err := <-failed
			if !errors.Is(err, dcs.ErrUnknown) || !strings.HasPrefix(err.Error(), "etcd: put /demo/"+name) {
				t.Errorf("the error is %v", err)
			}
			t.Log(err)
		})
	}
}

package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
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
	s := etcd.New(client)
	s.Reconfirm = time.Hour // what the tests wait for comes without it
	return s
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

// until waits for an element, for much longer than a busy machine needs.
func (f *follower) until(what string, ok func(dcs.Snapshot) bool) {
	f.t.Helper()
	const within = 30 * time.Second
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
				f.t.Logf("%s after %v", what, time.Since(begin).Round(10*time.Microsecond))
				return
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
	f.until("stale", stale)
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
	f.until("fresh", fresh("k=1"))
	at := f.last.At

	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	closed := time.Now()
	f.until("stale", stale)
	if content(f.last) != "k=1" || f.last.At.Before(at) || f.last.At.After(closed) {
		t.Errorf("stale content is %q of %v, confirmed was k=1 of %v, closed at %v", content(f.last), f.last.At, at, closed)
	}
	if s, err = embedded.Start(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	p.target = strings.TrimPrefix(s.Endpoint(), "http://")
	p.mu.Unlock()
	f.until("fresh again", fresh("k=1"))
	if e, _ := f.last.Get(dir + "/k"); e.Version != v {
		t.Errorf("version is %v, was %v", e.Version, v)
	}
	put(t, store, "k", "2", v)
	f.until("following again", fresh("k=2"))
}

// gRPC's own wait before it connects again grows from one second to two minutes: alone it would take minutes for as
// many attempts as are awaited here.
func TestWatchSurvivesAnOutageOfMinutes(t *testing.T) {
	leak.Check(t)
	s := start(t, embedded.Config{})
	p := newProxy(t, s.Endpoint())
	f := follow(t, connect(t, p.Endpoint()))
	f.until("fresh", fresh(""))
	p.Cut(true)
	f.until("stale", stale)
	attempts := time.After(30 * time.Second)
	for range 20 {
		select {
		case <-p.refused:
		case <-attempts:
			t.Fatal("fewer than 20 attempts to connect in 30 s")
		}
	}
	put(t, s.Store(), "k", "1", dcs.Version{})
	p.Cut(false)
	f.until("fresh again", fresh("k=1"))
}

func TestWatchSurvivesCompaction(t *testing.T) {
	leak.Check(t)
	s := start(t, embedded.Config{})
	p := newProxy(t, s.Endpoint())
	f := follow(t, connect(t, p.Endpoint()))
	gone := put(t, s.Store(), "gone", "1", dcs.Version{})
	f.until("fresh", fresh("gone=1"))
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
	f.until("fresh", fresh("k=19"))
	put(t, s.Store(), "k", "20", v)
	f.until("following", fresh("k=20"))
}

func TestWatchNoticesSilence(t *testing.T) {
	leak.Check(t)
	s := start(t, embedded.Config{})
	p := newProxy(t, s.Endpoint())
	store := connect(t, p.Endpoint())
	store.Reconfirm = 200 * time.Millisecond
	f := follow(t, store)
	f.until("fresh", fresh(""))
	p.Freeze(true)
	f.until("stale", stale)
	put(t, s.Store(), "k", "1", dcs.Version{})
	p.Freeze(false)
	f.until("fresh", fresh("k=1"))
}

// deaf makes the first watch stream hear nothing after it was made, while reads work: a server that is cut off, behind
// a connection that does not know it.
type deaf struct {
	reads, streams atomic.Int64  // reads that are done, streams that were opened
	made           chan struct{} // closed when the server has made the first watch
}

func (d *deaf) options() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(
			func(ctx context.Context, m string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, o ...grpc.CallOption) error {
				err := next(ctx, m, req, reply, cc, o...)
				if strings.HasSuffix(m, "/Range") {
					d.reads.Add(1)
				}
				return err
			}),
		grpc.WithChainStreamInterceptor(
			func(ctx context.Context, s *grpc.StreamDesc, cc *grpc.ClientConn, m string, next grpc.Streamer, o ...grpc.CallOption) (grpc.ClientStream, error) {
				cs, err := next(ctx, s, cc, m, o...)
				if err == nil && strings.HasSuffix(m, "/Watch") && d.streams.Add(1) == 1 {
					cs = &deafStream{ClientStream: cs, made: d.made}
				}
				return cs, err
			}),
	}
}

type deafStream struct {
	grpc.ClientStream
	heard int
	made  chan struct{}
}

func (d *deafStream) RecvMsg(m any) error {
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
	d := &deaf{made: make(chan struct{})}
	store := connect(t, s.Endpoint(), func(c *clientv3.Config) { c.DialOptions = append(c.DialOptions, d.options()...) })
	store.Reconfirm = 2 * time.Second
	store.Timeout = 500 * time.Millisecond
	f := follow(t, store)
	f.until("fresh", fresh(""))
	select { // a stream that begins behind would be replaced at once, deaf or not
	case <-d.made:
	case <-time.After(30 * time.Second):
		t.Fatal("no watch was made")
	}
	reads := d.reads.Load()
	v := put(t, s.Store(), "k", "0", dcs.Version{})
	f.until("repaired by a read", fresh("k=0"))
	if d.reads.Load() == reads {
		t.Fatal("the stream was not deaf")
	}
	for deadline := time.Now().Add(30 * time.Second); d.streams.Load() < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the deaf stream is still in use")
		}
	}
	// Changes come by events again: not each of them waits for a read.
	for i := 1; ; i++ {
		reads := d.reads.Load()
		v = put(t, s.Store(), "k", fmt.Sprint(i), v)
		f.until("following", fresh(fmt.Sprint("k=", i)))
		if d.reads.Load() == reads {
			break
		}
		if i == 20 {
			t.Fatal("20 changes, and each arrived by a read")
		}
	}
}

func TestWatchOfAStoreThatWasReplaced(t *testing.T) {
	leak.Check(t)
	first := start(t, embedded.Config{})
	p := newProxy(t, first.Endpoint())
	store := connect(t, p.Endpoint())
	v := put(t, store, "k", "0", dcs.Version{})
	for range 20 {
		v = put(t, store, "k", "old", v)
	}
	f := follow(t, store)
	f.until("fresh", fresh("k=old"))

	second := start(t, embedded.Config{})
	put(t, second.Store(), "other", "new", dcs.Version{})
	p.mu.Lock()
	p.target = strings.TrimPrefix(second.Endpoint(), "http://")
	p.mu.Unlock()
	p.Cut(false) // ends the connections
	f.until("the new store's", fresh("other=new"))
	put(t, second.Store(), "another", "new", dcs.Version{})
	f.until("following the new store", fresh("another=new other=new"))
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
			if snap.Known() { // no answer yet is no mistake
				t.Fatalf("got %v, stale %v", content(snap), snap.Stale)
			}
		}
		return nil
	}

	reader := as("reader", "secret-u")
	f := follow(t, reader)
	f.until("fresh with read rights alone", fresh(""))
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
	f.until("following with read rights alone", fresh("k=1"))
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
	store.Timeout = time.Minute // whoever waits for an answer takes as long
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
		if d := time.Since(begin); d > 10*time.Second {
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

// The cases run side by side: a lease gives its holder a tenth of its TTL to notice the end, and only that of a long
// one is more than a busy machine may sleep.
func TestLeaseInTrouble(t *testing.T) {
	leak.Check(t)
	s := start(t, embedded.Config{})
	const ttl = 10 * time.Second
	for name, fault := range map[string]func(*proxy){
		"cut":      func(p *proxy) { p.Cut(true) },
		"withheld": func(p *proxy) { p.Freeze(true) },
	} {
		t.Run("lost in time/"+name, func(t *testing.T) {
			t.Parallel()
			p := newProxy(t, s.Endpoint())
			store := connect(t, p.Endpoint())
			store.TTL = ttl
			there := func(s dcs.Snapshot) bool {
				_, ok := s.Get(dir + "/" + name)
				return ok
			}
			err := store.Lease(t.Context(), func(ctx context.Context, w dcs.Writer) error {
				put(t, w, name, "1", dcs.Version{})
				begin := time.Now()
				fault(p)
				<-ctx.Done()
				t.Logf("lost after %v: %v", time.Since(begin).Round(time.Millisecond), context.Cause(ctx))
				if snap, err := s.Store().Get(t.Context(), dir); err != nil || !there(snap) {
					t.Errorf("the key is gone already: %q, %v", content(snap), err)
				}
				return ctx.Err()
			})
			if !errors.Is(err, dcs.ErrLeaseLost) {
				t.Errorf("lease ended with %v", err)
			}
			f := follow(t, s.Store())
			f.until("given away", func(s dcs.Snapshot) bool { return s.Stale == nil && !there(s) })
		})
	}
	t.Run("outlives a short one", func(t *testing.T) {
		t.Parallel()
		p := newProxy(t, s.Endpoint())
		store := connect(t, p.Endpoint())
		store.TTL = ttl
		err := store.Lease(t.Context(), func(ctx context.Context, _ dcs.Writer) error {
			p.Cut(true)
			trouble := time.After(ttl/3 + time.Second) // a renewal falls into it
			healed := time.After(ttl + time.Second)    // only a renewal makes it last so long
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
	})
}

func TestLeaseThatTheServerEnded(t *testing.T) {
	leak.Check(t)
	s := start(t, embedded.Config{})
	store := s.Store()
	store.TTL = 3 * time.Second
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
		timeout time.Duration
		end     func(*proxy)
	}{
		"deadline":   {2 * time.Second, nil},
		"connection": {time.Minute, func(p *proxy) { p.Cut(true) }},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProxy(t, s.Endpoint())
			store := connect(t, p.Endpoint())
			store.Timeout = fault.timeout
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			v, err := store.Put(ctx, dir+"/"+name, []byte("1"), dcs.Version{}) // it is connected now
			if err != nil {
				t.Fatal(err)
			}
			f := follow(t, s.Store())
			p.Freeze(true)
			failed := make(chan error, 1)
			go func() {
				_, err := store.Put(t.Context(), dir+"/"+name, []byte("2"), v)
				failed <- err
			}()
			f.until("written", func(s dcs.Snapshot) bool {
				e, _ := s.Get(dir + "/" + name)
				return string(e.Value) == "2"
			})
			if fault.end != nil {
				fault.end(p)
			}
			err = <-failed
			if !errors.Is(err, dcs.ErrUnknown) || !strings.HasPrefix(err.Error(), "etcd: put /demo/"+name) {
				t.Errorf("the error is %v", err)
			}
			t.Log(err)
		})
	}
}

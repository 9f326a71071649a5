package local

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/leak"
)

// fake is a server that does with each connection what it is told to.
func fake(t *testing.T, serve func(net.Conn)) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	go func() {
		defer close(done)
		var held []net.Conn
		for {
			conn, err := l.Accept()
			if err != nil {
				break
			}
			serve(conn)
			held = append(held, conn)
		}
		for _, c := range held {
			_ = c.Close()
		}
	}()
	return l.Addr().String()
}

// resets is a proxy whose server is gone, frozen a server that accepts and says nothing.
func resets(c net.Conn) { _ = c.Close() }
func frozen(net.Conn)   {}

// TestServersMoveOn: a request without an answer fails, once, and the next one goes to another server. One that the
// caller takes back changes nothing, and of a server that refuses connections no request notices.
func TestServersMoveOn(t *testing.T) {
	leak.Check(t)
	var served atomic.Int32
	serves := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		served.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	defer serves.Close()
	good := strings.TrimPrefix(serves.URL, "http://")
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = gone.Close()

	const short = 100 * time.Millisecond
	canceled := func(ctx context.Context) (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithCancelCause(ctx)
		stop := time.AfterFunc(short, func() { cancel(errors.New("not wanted any more")) })
		return ctx, func() { stop.Stop(); cancel(nil) }
	}
	late := func(ctx context.Context) (context.Context, context.CancelFunc) {
		return context.WithTimeout(ctx, short)
	}
	for name, c := range map[string]struct {
		first string
		bound func(context.Context) (context.Context, context.CancelFunc)
		ok    bool  // the first request succeeds
		at    int64 // the server in use after it
	}{
		"reset":    {fake(t, resets), context.WithCancel, false, 1},
		"frozen":   {fake(t, frozen), late, false, 1},
		"canceled": {fake(t, frozen), canceled, false, 0},
		"refused":  {gone.Addr().String(), context.WithCancel, true, 1},
		"works":    {good, context.WithCancel, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServers([]string{c.first, good})
			defer s.transport.CloseIdleConnections()
			put := func(bound func(context.Context) (context.Context, context.CancelFunc)) error {
				ctx, cancel := bound(t.Context())
				defer cancel()
				r, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://anywhere/v1/kv/a", strings.NewReader("value"))
				if err != nil {
					return err
				}
				resp, err := (&http.Client{Transport: s}).Do(r)
				if err != nil {
					return err
				}
				return resp.Body.Close()
			}
			served.Store(0)
			if err := put(c.bound); (err == nil) != c.ok {
				t.Errorf("the first request: %v, want success %t", err, c.ok)
			}
			if got := s.at.Load(); got != c.at || (served.Load() == 1) != c.ok {
				t.Errorf("after it server %d is in use, want %d; the good one has served %d requests", got, c.at, served.Load())
			}
			if c.at == 1 {
				if err := put(context.WithCancel); err != nil || s.at.Load() != 1 {
					t.Errorf("the next request: %v, at server %d", err, s.at.Load())
				}
			}
		})
	}
}

// TestEtcdElsewhereTLS: an etcd at an https:// URL is spoken to with TLS; other stores have no such way.
func TestEtcdElsewhereTLS(t *testing.T) {
	hello := make(chan byte, 1)
	addr := fake(t, func(c net.Conn) {
		b := make([]byte, 1)
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, _ = io.ReadFull(c, b)
		_ = c.Close()
		select {
		case hello <- b[0]:
		default:
		}
	})
	store, closed, err := DCS{Kind: etcdKind, Endpoints: []string{"https://" + addr}}.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer closed()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := store.Get(ctx, "/service/demo"); err == nil {
		t.Error("who closes every connection has answered")
	}
	if b := <-hello; b != 0x16 { // a TLS handshake
		t.Errorf("the first byte is %#x, want TLS", b)
	}
	for _, d := range []DCS{
		{Kind: consulKind, Endpoints: []string{"https://127.0.0.1:8501"}},
		{Endpoints: []string{"https://127.0.0.1:2379"}},
		{Kind: etcdKind, Endpoints: []string{"https://127.0.0.1"}},
	} {
		if _, _, err := d.Open(); err == nil || !strings.Contains(err.Error(), "DCS.Endpoints[0]") {
			t.Errorf("%v: %v, want an error that names the endpoint", d, err)
		}
	}
}

// TestReserved: only the servers of this kind of store take names away from nodes and poolers.
func TestReserved(t *testing.T) {
	for _, c := range []struct {
		name, kind string
		want       bool
	}{
		{"etcd-1", embeddedKind, true},
		{"etcd-7", etcdKind, true},
		{"consul-1", consulKind, true},
		{"zookeeper-1", zookeeperKind, true},
		{"etcd-1", consulKind, false},
		{"consul-1", embeddedKind, false},
		{"embedded-1", embeddedKind, false},
		{"consul-a", consulKind, false},
		{"consul", consulKind, false},
		{"envoy", zookeeperKind, true},
		{"cp-1", zookeeperKind, true},
	} {
		if got := reserved(c.name, DCS{Kind: c.kind}); got != c.want {
			t.Errorf("%s with %s: %t", c.name, c.kind, got)
		}
	}
}

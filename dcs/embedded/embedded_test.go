package embedded_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/embedded"
	"github.com/pgconvoy/pgconvoy/internal/leak"
)

func start(t *testing.T, c embedded.Config) *embedded.Server {
	t.Helper()
	begin := time.Now()
	s, err := embedded.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("started in %v", time.Since(begin).Round(time.Millisecond))
	t.Cleanup(func() {
		begin := time.Now()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if d := time.Since(begin); d > 2*time.Second {
			t.Errorf("close took %v", d)
		}
	})
	return s
}

// call sends one request to the JSON gateway, as Patroni does.
func call(t *testing.T, method, url, body string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(answer)
}

func TestGateway(t *testing.T) {
	leak.Check(t)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	s := start(t, embedded.Config{})
	for _, c := range []struct{ method, path, body, want string }{
		{http.MethodGet, "/version", "", `"etcdserver":"3.`},
		{http.MethodPost, "/v3/kv/put", `{"key":"L2E=","value":"MQ=="}`, `"revision":"2"`},
		{http.MethodPost, "/v3/kv/range", `{"key":"L2E="}`, `"value":"MQ=="`},
		{http.MethodPost, "/v3/lease/grant", `{"TTL":30}`, `"TTL":"30"`},
		{http.MethodPost, "/v3/cluster/member/list", `{}`, s.Endpoint()},
	} {
		if resp, got := call(t, c.method, s.Endpoint()+c.path, c.body); resp.StatusCode != 200 || !strings.Contains(got, c.want) {
			t.Errorf("%s: %s %s, want %s", c.path, resp.Status, got, c.want)
		}
	}
	if resp, _ := call(t, http.MethodGet, s.Endpoint()+"/debug/pprof/", ""); resp.StatusCode != http.StatusNotFound {
		t.Errorf("pprof is served: %s", resp.Status)
	}
}

// Clients that will not leave do not keep the server from stopping.
func TestCloseWithWatchesOpen(t *testing.T) {
	leak.Check(t)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	s := start(t, embedded.Config{})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.Endpoint()+"/v3/watch",
		strings.NewReader(`{"create_request":{"key":"L2E="}}`))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := resp.Body.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	c, wait := dcs.Latest(s.Store().Watch(t.Context(), "/a"))
	<-c
	begin := time.Now()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if d := time.Since(begin); d > 2*time.Second {
		t.Errorf("close took %v", d)
	}
	if err := wait(); err == nil {
		t.Error("the watch ended without a reason although its client is closed")
	}
	if err := s.Close(); err != nil {
		t.Errorf("a second close: %v", err)
	}
}

func TestDataSurvives(t *testing.T) {
	leak.Check(t)
	for _, c := range []embedded.Config{
		{Dir: filepath.Join(t.TempDir(), "synced")},
		{Dir: filepath.Join(t.TempDir(), "not"), NoSync: true},
	} {
		s := start(t, c)
		v, err := s.Store().Put(t.Context(), "/a/b", []byte("1"), dcs.Version{})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		snap, err := start(t, c).Store().Get(t.Context(), "/a")
		if e, _ := snap.Get("/a/b"); err != nil || e.Version != v {
			t.Errorf("read %v, %v; wrote %v", e, err, v)
		}
	}
}

func TestThrowaway(t *testing.T) {
	leak.Check(t)
	t.Setenv("TMPDIR", t.TempDir())
	if err := start(t, embedded.Config{}).Close(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestListen(t *testing.T) {
	leak.Check(t)
	s := start(t, embedded.Config{Listen: netip.MustParseAddrPort("127.0.0.1:0")})
	addr := netip.MustParseAddrPort(strings.TrimPrefix(s.Endpoint(), "http://"))
	if _, err := embedded.Start(t.Context(), embedded.Config{Listen: addr}); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("two servers at %v: %v", addr, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s := start(t, embedded.Config{Listen: addr}); s.Endpoint() != "http://"+addr.String() {
		t.Errorf("endpoint is %s, asked for %v", s.Endpoint(), addr)
	}
	c, err := net.Dial("tcp", "127.0.0.1:2380")
	if err == nil {
		_ = c.Close()
		t.Error("it listens for peers")
	}
}

func TestManyAtOnce(t *testing.T) {
	leak.Check(t)
	var waits []func() error
	for range 5 {
		done := make(chan error, 1)
		go func() {
			s, err := embedded.Start(t.Context(), embedded.Config{})
			if err == nil {
				err = s.Close()
			}
			done <- err
		}()
		waits = append(waits, func() error { return <-done })
	}
	for _, wait := range waits {
		if err := wait(); err != nil {
			t.Error(err)
		}
	}
}

func TestStartThatFails(t *testing.T) {
	leak.Check(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := embedded.Start(ctx, embedded.Config{}); !errors.Is(err, context.Canceled) {
		t.Errorf("under an ended context: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := embedded.Start(t.Context(), embedded.Config{Dir: file}); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("directory is a file: %v", err)
	}
}

func TestLog(t *testing.T) {
	leak.Check(t)
	file := filepath.Join(t.TempDir(), "etcd.log")
	if err := start(t, embedded.Config{Log: file}).Close(); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(file); err != nil || !strings.Contains(string(b), "closed etcd server") {
		t.Errorf("log is %q, %v", b, err)
	}
}

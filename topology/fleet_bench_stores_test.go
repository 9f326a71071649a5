package topology_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/hashicorp/consul/api"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"

	"github.com/pgconvoy/pgconvoy/dcs/consul"
	"github.com/pgconvoy/pgconvoy/dcs/embedded"
	"github.com/pgconvoy/pgconvoy/dcs/etcd"
	"github.com/pgconvoy/pgconvoy/dcs/zookeeper"
	"github.com/pgconvoy/pgconvoy/internal/storetest"
)

// meter counts what goes to a store and comes from it.
type meter struct{ requests, sent, received atomic.Int64 }

func (m *meter) counts() (requests, sent, received int64) {
	return m.requests.Load(), m.sent.Load(), m.received.Load()
}

// dial makes a connection on which bytes are counted, and with requests each write as a request.
func (m *meter) dial(ctx context.Context, addr string, requests bool) (net.Conn, error) {
	c, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &metered{c, m, requests}, nil
}

type metered struct {
	net.Conn
	m        *meter
	requests bool
}

func (c *metered) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.m.received.Add(int64(n))
	return n, err
}

func (c *metered) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.m.sent.Add(int64(n))
	if c.requests {
		c.m.requests.Add(1)
	}
	return n, err
}

// rpcs counts each message that a client of etcd sends, alone or on a stream, as a request.
type rpcs struct{ m *meter }

func (r rpcs) HandleRPC(_ context.Context, s stats.RPCStats) {
	if _, ok := s.(*stats.OutPayload); ok {
		r.m.requests.Add(1)
	}
}

func (rpcs) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (rpcs) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (rpcs) HandleConn(context.Context, stats.ConnStats)                       {}

func fleetEtcd(b *testing.B) fleetStore {
	endpoint := fleetEtcdProcess(b)
	return func(b *testing.B, m *meter) fleetConn {
		b.Helper()
		c, err := clientv3.New(clientv3.Config{
			Endpoints: []string{endpoint}, Logger: zap.NewNop(),
			DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 3 * time.Second,
			DialOptions: []grpc.DialOption{
				grpc.WithStatsHandler(rpcs{m}),
				grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return m.dial(ctx, addr, false) }),
			},
		})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = c.Close() })
		return fleetConn{etcd.New(c), func(ctx context.Context, key string, ready, seen func()) error {
			for resp := range c.Watch(clientv3.WithRequireLeader(ctx), key, clientv3.WithCreatedNotify(), clientv3.WithFilterDelete()) {
				if err := resp.Err(); err != nil {
					return err
				}
				if resp.Created {
					ready()
				}
				for range resp.Events {
					seen()
				}
			}
			return context.Cause(ctx)
		}}
	}
}

// fleetRole makes this program, started again, the etcd of the benchmark.
const fleetRole = "PGCONVOY_FLEET_ETCD"

// TestFleetEtcd is no test but the etcd of BenchmarkAgents: it serves until its input ends. Otherwise it does nothing.
func TestFleetEtcd(t *testing.T) {
	if os.Getenv(fleetRole) == "" {
		return
	}
	s, err := embedded.Start(t.Context(), embedded.Config{NoSync: true}) // the disk is not what is measured
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(s.Endpoint())
	_, _ = io.Copy(io.Discard, os.Stdin)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func fleetEtcdProcess(b *testing.B) (endpoint string) {
	b.Helper()
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^TestFleetEtcd$", "-test.timeout=15m") // it ends with its input
	cmd.Env, cmd.Stderr = append(os.Environ(), fleetRole+"=1"), os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	lines := bufio.NewReader(out)
	b.Cleanup(func() {
		_ = in.Close()
		_, _ = io.Copy(io.Discard, lines)
		if err := cmd.Wait(); err != nil {
			b.Errorf("the etcd: %v", err)
		}
	})
	line, err := lines.ReadString('\n')
	if err != nil {
		b.Fatalf("the etcd did not start: %v %s", err, line)
	}
	return strings.TrimSpace(line)
}

// counted counts the requests of Consul's client.
type counted struct {
	*http.Transport
	m *meter
}

func (c counted) RoundTrip(r *http.Request) (*http.Response, error) {
	c.m.requests.Add(1)
	return c.Transport.RoundTrip(r)
}

func fleetConsul(b *testing.B) fleetStore {
	// A hundred agents have one address here: an agent of Consul takes 200 connections from one.
	s := storetest.Consul(b, 1, func(c map[string]any) { c["limits"] = map[string]any{"http_max_conns_per_client": 2000} })
	return func(b *testing.B, m *meter) fleetConn {
		b.Helper()
		t := &http.Transport{DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) { return m.dial(ctx, addr, false) }}
		b.Cleanup(t.CloseIdleConnections)
		c, err := api.NewClient(&api.Config{Address: s.Addrs()[0].String(), HttpClient: &http.Client{Transport: counted{t, m}}})
		if err != nil {
			b.Fatal(err)
		}
		return fleetConn{consul.New(c), func(ctx context.Context, key string, ready, seen func()) error {
			// The query after the first one is under way, or will answer at once, when something changes.
			var last uint64
			for index := uint64(0); ; {
				e, meta, err := c.KV().Get(key[1:], (&api.QueryOptions{WaitIndex: index}).WithContext(ctx))
				if err != nil {
					return err
				}
				if e != nil && index != 0 && e.CreateIndex != last {
					seen()
				}
				if e != nil {
					last = e.CreateIndex
				}
				index = meta.LastIndex
				ready()
			}
		}}
	}
}

func fleetZooKeeper(b *testing.B) fleetStore {
	s := storetest.ZooKeeper(b, 1, func(c map[string]string) { c["maxClientCnxns"] = "0" }) // likewise: 60
	return func(b *testing.B, m *meter) fleetConn {
		b.Helper()
		const session = 10 * time.Second
		dial := func(_, addr string, timeout time.Duration) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(context.Background(), timeout)
			defer cancel()
			return m.dial(ctx, addr, true)
		}
		c, _, err := zk.Connect([]string{s.Addrs()[0].String()}, session,
			zk.WithDialer(zookeeper.Dialer(session, dial)), zk.WithLogInfo(false), zk.WithLogger(noLog{}))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(c.Close)
		store := zookeeper.New(c)
		store.TTL = session
		return fleetConn{store, func(ctx context.Context, key string, ready, seen func()) error {
			last := int64(-1)
			for {
				there, stat, fired, err := c.ExistsW(key)
				if err != nil {
					return err
				}
				if there && last >= 0 && stat.Czxid != last {
					seen()
				}
				if there {
					last = stat.Czxid
				}
				ready()
				select {
				case <-fired:
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
		}}
	}
}

type noLog struct{}

func (noLog) Printf(string, ...any) {}

// usage is what this process has in use.
type usage struct{ heap, goroutines int }

func usageNow() usage {
	var s runtime.MemStats
	for range 2 { // the second frees what the first finalized
		runtime.GC()
	}
	runtime.ReadMemStats(&s)
	return usage{int(s.HeapAlloc), runtime.NumGoroutine()}
}

// cpuTime is what this process has used.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

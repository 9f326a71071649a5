//go:build linux

package patroni_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/pgconvoy/pgconvoy/dcs/etcd"
	"github.com/pgconvoy/pgconvoy/patroni"
)

// BenchmarkWatchAll follows a namespace of Patroni clusters in a real etcd, with the traffic of their heartbeats and a
// hundred changes of leaders in each second. The etcd with its writers, the watch, and beside it a bare watch of the
// etcd client on the same prefix are a process each, so that CPU and memory are their own. Figures of the bare watch are
// the floor, as are the bytes of the keys and values for the memory. Times mean something on a machine that is idle else.
func BenchmarkWatchAll(b *testing.B) {
	for _, n := range []int{1_000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				scale(b, n)
			}
		})
	}
}

const (
	scaleRole     = "PGCONVOY_SCALE" // what a process of the benchmark is to be
	underTraffic  = 22 * time.Second // two confirmations and some
	changesPerSec = 100
)

func scale(b *testing.B, n int) {
	server := spawn(b, "server")
	var loaded load
	server.ask(b, request{Clusters: n}, &loaded)

	streams := watchStreams(b, loaded.Endpoint)
	var floor, ours watched
	bare := spawn(b, "bare")
	bare.ask(b, request{Clusters: n, Endpoint: loaded.Endpoint}, &floor)
	bareStreams := watchStreams(b, loaded.Endpoint)
	all := spawn(b, "all")
	all.ask(b, request{Clusters: n, Endpoint: loaded.Endpoint}, &ours)
	streams, bareStreams = watchStreams(b, loaded.Endpoint)-bareStreams, bareStreams-streams

	bare.send(b, request{}) // from here on their CPU counts
	all.send(b, request{})
	var t traffic
	server.ask(b, request{For: underTraffic}, &t)
	bare.ask(b, request{}, &floor)
	all.ask(b, request{}, &ours)
	for _, p := range []*child{server, bare, all} {
		p.end(b)
	}

	lag := func(w watched) (p50, p99 time.Duration) {
		var d []time.Duration
		for revision, sent := range t.Sent {
			if at, ok := w.Seen[revision]; ok {
				d = append(d, time.Duration(at-sent))
			}
		}
		if len(d) < len(t.Sent)*9/10 { // the last ones may be missing, or two of one cluster were one
			b.Errorf("of %d changes %d were delivered", len(t.Sent), len(d))
		}
		slices.Sort(d)
		if len(d) == 0 {
			return 0, 0
		}
		return d[len(d)/2], d[len(d)*99/100]
	}
	bare50, bare99 := lag(floor)
	all50, all99 := lag(ours)
	kB := func(bytes int) float64 { return float64(bytes) / float64(n) / 1e3 }
	b.Logf("%d clusters, %.0f heartbeats/s (of %d), %.0f changes of leaders/s for %v; loaded in %v\n"+
		"                        watch all   floor\n"+
		"heap, kB/cluster        %9.1f   %.1f (bytes of keys and values)\n"+
		"resident, kB/cluster    %9.1f   %.1f (bare watch)\n"+
		"CPU, cores              %9.3f   %.3f (bare watch)\n"+
		"cold start, s           %9.2f   %.2f (bare read and watch)\n"+
		"change to delivery, ms  %9.2f   %.2f (p50, bare watch)\n"+
		"change to delivery, ms  %9.2f   %.2f (p99, bare watch; ratio %.2f)\n"+
		"watch streams           %9d   %d",
		n, t.perSecond(t.Heartbeats), n*4/10, t.perSecond(t.Changes), t.Took.Round(time.Second), loaded.Took.Round(100*time.Millisecond),
		kB(ours.Heap), kB(loaded.Bytes), kB(ours.Resident), kB(floor.Resident), ours.Cores, floor.Cores,
		ours.Cold.Seconds(), floor.Cold.Seconds(),
		float64(all50.Microseconds())/1e3, float64(bare50.Microseconds())/1e3,
		float64(all99.Microseconds())/1e3, float64(bare99.Microseconds())/1e3, float64(all99)/float64(max(bare99, 1)),
		streams, bareStreams)
	if kB(ours.Heap) > 30 || streams > 4 { // the goals that hold on any machine
		b.Errorf("%.1f kB for a cluster, %d watch streams", kB(ours.Heap), streams)
	}
	b.ReportMetric(kB(ours.Heap), "heap-kB/cluster")
	b.ReportMetric(ours.Cores, "cores")
	b.ReportMetric(floor.Cores, "bare-cores")
	b.ReportMetric(float64(all99.Microseconds()), "p99-µs")
	b.ReportMetric(float64(bare99.Microseconds()), "bare-p99-µs")
}

// What the processes say to each other.
type (
	request struct {
		Clusters int
		Endpoint string
		For      time.Duration
	}
	load struct {
		Endpoint string
		Bytes    int
		Took     time.Duration
	}
	traffic struct {
		Took                time.Duration
		Heartbeats, Changes int
		Sent                map[uint64]int64 // by the revision of a change, when it was sent
	}
	watched struct {
		Cold           time.Duration
		Heap, Resident int
		Cores          float64
		Seen           map[uint64]int64 // by the revision of a change, when it was seen
	}
)

func (t traffic) perSecond(n int) float64 { return float64(n) / t.Took.Seconds() }

// child is this program, started again in a role.
type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

func spawn(b *testing.B, role string) *child {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 4*time.Minute)
	b.Cleanup(cancel)
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	c := &child{cmd: exec.CommandContext(ctx, exe, "-test.run=^TestScaleProcess$", "-test.timeout=5m")}
	c.cmd.Env = append(os.Environ(), scaleRole+"="+role)
	c.cmd.Stderr = os.Stderr
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		b.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	c.out = json.NewDecoder(out)
	if err := c.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { // the context ends it if it has not ended
		cancel()
		_ = c.cmd.Wait()
	})
	return c
}

func (c *child) send(b *testing.B, r request) {
	b.Helper()
	if err := json.NewEncoder(c.in).Encode(r); err != nil {
		b.Fatal(err)
	}
}

func (c *child) ask(b *testing.B, r request, answer any) {
	b.Helper()
	c.send(b, r)
	if err := c.out.Decode(answer); err != nil {
		b.Fatalf("process in the role %s: %v", c.cmd.Env[len(c.cmd.Env)-1], err)
	}
}

func (c *child) end(b *testing.B) {
	b.Helper()
	_ = c.in.Close()
	_, _ = io.Copy(io.Discard, c.out.Buffered())
	if err := c.cmd.Wait(); err != nil {
		b.Error(err)
	}
}

// TestScaleProcess is no test but the other processes of BenchmarkWatchAll. Without a role it does nothing.
func TestScaleProcess(t *testing.T) {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	switch os.Getenv(scaleRole) {
	case "server":
		serveScale(t, in, out)
	case "bare":
		watchScale(t, in, out, watchBare)
	case "all":
		watchScale(t, in, out, watchEvery)
	}
}

// watchScale runs a watch, and answers when all is known, and again with what there was to see.
func watchScale(
	t *testing.T, in *json.Decoder, out *json.Encoder,
	watch func(ctx context.Context, c *clientv3.Client, complete func(), seen func(revision uint64)) error,
) {
	receive := func() (r request) {
		if err := in.Decode(&r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	send := func(w watched) {
		if err := out.Encode(w); err != nil {
			t.Fatal(err)
		}
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{receive().Endpoint}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	heap := heapInUse()
	begin := time.Now()
	complete := make(chan struct{})
	w := watched{Seen: map[uint64]int64{}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- watch(ctx, client, func() { close(complete) }, func(revision uint64) { w.Seen[revision] = time.Now().UnixNano() })
	}()
	select {
	case <-complete:
	case err := <-done:
		t.Fatal(err)
	}
	w.Cold = time.Since(begin)
	send(watched{Cold: w.Cold})

	receive()
	before, since := cpu(t), time.Now()
	receive()
	w.Cores = (cpu(t) - before).Seconds() / time.Since(since).Seconds()
	w.Resident = resident(t) // as it is at work
	w.Heap = heapInUse() - heap
	cancel()
	<-done
	send(w)
}

// watchBare is what a program must do at least: read everything once, and receive the events.
func watchBare(ctx context.Context, c *clientv3.Client, complete func(), seen func(uint64)) error {
	resp, err := c.Get(ctx, scaleNamespace+"/", clientv3.WithPrefix())
	if err != nil {
		return err
	}
	events := c.Watch(clientv3.WithRequireLeader(ctx), scaleNamespace+"/", clientv3.WithPrefix(),
		clientv3.WithRev(resp.Header.GetRevision()+1), clientv3.WithCreatedNotify())
	for resp := range events {
		if resp.Created {
			complete()
		}
		for _, e := range resp.Events {
			if e.Type == clientv3.EventTypePut && strings.HasSuffix(string(e.Kv.Key), "/leader") {
				seen(uint64(e.Kv.ModRevision))
			}
		}
	}
	return ctx.Err()
}

func watchEvery(ctx context.Context, c *clientv3.Client, complete func(), seen func(uint64)) error {
	leaders := map[string]uint64{}
	for c, err := range patroni.WatchAll(ctx, etcd.New(c), scaleNamespace) {
		switch v := c.LeaderVersion.Modified; {
		case err != nil:
			return err
		case c.Path == scaleNamespace:
			if complete != nil && c.Known() {
				complete()
				complete = nil
			}
		case v != 0 && v != leaders[c.Path]:
			leaders[c.Path] = v
			seen(v)
		}
	}
	return nil
}

func heapInUse() int {
	var m runtime.MemStats
	for range 2 { // the second frees what the first finalized
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

func cpu(t *testing.T) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func resident(t *testing.T) int {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "VmRSS:")
	var kB int
	if _, err := fmt.Sscan(rest, &kB); err != nil {
		t.Fatal(err)
	}
	return kB << 10
}

// watchStreams asks the server how many there are.
func watchStreams(b *testing.B, endpoint string) int {
	b.Helper()
	req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, endpoint+"/metrics", nil)
	if err != nil {
		b.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if v, ok := strings.CutPrefix(lines.Text(), "etcd_debugging_mvcc_watch_stream_total "); ok {
			var n float64
			if _, err := fmt.Sscan(v, &n); err != nil {
				b.Fatal(err)
			}
			return int(n)
		}
	}
	b.Fatal("the server does not say how many watch streams there are")
	return 0
}

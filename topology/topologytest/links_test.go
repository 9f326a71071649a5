package topologytest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/leak"
)

const (
	long  = time.Hour              // what is not undone is never seen
	bound = time.Minute            // for what must come
	brief = 100 * time.Millisecond // for what must not come: waiting longer would only find more
)

// server echoes.
type server struct {
	addr     netip.AddrPort
	accepted atomic.Int32
	heard    chan string // what it read, if somebody wants it
	ended    chan error  // how each connection ended

	mu    sync.Mutex
	conns []net.Conn
}

func serve(t testing.TB, ip string) *server {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Fatal(err)
	}
	s := &server{addr: l.Addr().(*net.TCPAddr).AddrPort(), heard: make(chan string, 1024), ended: make(chan error, 1024)}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.accepted.Add(1)
			s.mu.Lock()
			s.conns = append(s.conns, conn)
			s.mu.Unlock()
			wg.Go(func() { s.echo(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		s.hangUp()
		wg.Wait()
	})
	return s
}

func (s *server) echo(conn net.Conn) {
	defer conn.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			s.ended <- err
			return
		}
		select {
		case s.heard <- string(buf[:n]):
		default:
		}
		if _, err := conn.Write(buf[:n]); err != nil {
			s.ended <- err
			return
		}
	}
}

func (s *server) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.Close()
	}
	s.conns = nil
}

// hears waits for the next words that reach the server.
func (s *server) hears(t testing.TB, want string) {
	t.Helper()
	select {
	case got := <-s.heard:
		if got != want {
			t.Fatalf("the server heard %q, want %q", got, want)
		}
	case <-time.After(bound):
		t.Fatalf("the server did not hear %q", want)
	}
}

// ends waits for the end of a connection, as the server sees it.
func (s *server) ends(t testing.TB) error {
	t.Helper()
	select {
	case err := <-s.ended:
		return err
	case <-time.After(bound):
		t.Fatal("the server did not see the end of its connection")
		return nil
	}
}

// deaf checks that nothing reaches the server.
func (s *server) deaf(t testing.TB) {
	t.Helper()
	select {
	case got := <-s.heard:
		t.Fatalf("the server heard %q over a link that is deaf", got)
	case err := <-s.ended:
		t.Fatalf("the server saw an end over a link that is deaf: %v", err)
	case <-time.After(brief):
	}
}

// leaveNothing checks for goroutines that are left, unless a shared stack runs beside, whose connections come and go.
func leaveNothing(t *testing.T) {
	t.Helper()
	stacks := make([]byte, 4<<20)
	if bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("topologytest.launch")) {
		t.Log("a stack is running: leaks are not looked for")
		return
	}
	leak.Check(t)
}

// open makes links that end with the test; all that runs for them must be gone then.
func open(t testing.TB) *links {
	t.Helper()
	ls := newLinks()
	t.Cleanup(func() {
		if err := ls.close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return ls
}

func via(t testing.TB, ls *links, from, to string, addr netip.AddrPort) netip.AddrPort {
	t.Helper()
	a, err := ls.via(from, to, addr)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func dial(t testing.TB, a netip.AddrPort) *net.TCPConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", a.String(), bound)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

func say(t testing.TB, c net.Conn, words string) {
	t.Helper()
	if _, err := io.WriteString(c, words); err != nil {
		t.Fatal(err)
	}
}

func hear(t testing.TB, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if err := c.SetReadDeadline(time.Now().Add(bound)); err != nil {
		t.Fatal(err)
	}
	if n, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("heard %q, %v; want %q", got[:n], err, want)
	}
}

func ask(t testing.TB, c net.Conn, words string) (took time.Duration) {
	t.Helper()
	start := time.Now()
	say(t, c, words)
	hear(t, c, words)
	return time.Since(start)
}

// silent checks that nothing comes, neither data nor an end.
func silent(t testing.TB, c net.Conn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(brief)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read %d bytes, %v; want silence", n, err)
	}
}

// broken waits for the reset of a connection.
func broken(t testing.TB, c net.Conn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(bound)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("the connection ended with %v, want a reset", err)
	}
}

func refused(t testing.TB, a netip.AddrPort) {
	t.Helper()
	c, err := net.DialTimeout("tcp", a.String(), bound)
	if err == nil {
		c.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("dialling %v: %v, want a refusal", a, err)
	}
}

// must injects a fault and makes its undo succeed.
func must(t testing.TB) func(undo func() error, err error) func() {
	t.Helper()
	return func(undo func() error, err error) func() {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return func() {
			t.Helper()
			if err := undo(); err != nil {
				t.Fatalf("undo: %v", err)
			}
		}
	}
}

var aToB = Link{"a", "b"}

// nobody listens there.
var nobody = netip.MustParseAddrPort("127.0.0.1:1")

func TestLinkCarries(t *testing.T) {
	leaveNothing(t)
	s := serve(t, "127.0.0.2")
	ls := open(t)
	a := via(t, ls, "a", "b", s.addr)
	if a.Addr() != s.addr.Addr() || a.Port() < lowestPort || a.Port() >= highestPort {
		t.Errorf("the proxy of %v is at %v", s.addr, a)
	}
	if again := via(t, ls, "a", "b", s.addr); again != a {
		t.Errorf("asked again, %v instead of %v", again, a)
	}
	c := dial(t, a)
	ask(t, c, "hello")
	say(t, c, "the last words are heard")
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	hear(t, c, "the last words are heard")
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the end is %v, want EOF", err)
	}
}

func TestLinkToNobody(t *testing.T) {
	leaveNothing(t)
	s := serve(t, "127.0.0.1")
	ls := open(t)
	switch c, err := net.DialTimeout("tcp", via(t, ls, "a", "b", nobody).String(), bound); {
	case err == nil:
		defer c.Close()
		broken(t, c)
	case !errors.Is(err, syscall.ECONNRESET): // so soon
		t.Error(err)
	}

	c := dial(t, via(t, ls, "a", "c", s.addr))
	ask(t, c, "hello")
	s.mu.Lock()
	_ = s.conns[0].(*net.TCPConn).SetLinger(0)
	s.mu.Unlock()
	s.hangUp()
	broken(t, c)
}

func TestPorts(t *testing.T) {
	leaveNothing(t)
	ls := open(t)
	at := func(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
	n1 := via(t, ls, "poolers", "n1/postgres", at("127.0.0.1:5432"))
	n2 := via(t, ls, "poolers", "n2/postgres", at("127.0.0.2:5432"))
	n3 := via(t, ls, "poolers", "n3/postgres", at("127.0.0.3:5432"))
	if n1.Port() != n2.Port() || n2.Port() != n3.Port() {
		t.Errorf("the ports of one role differ: %v, %v, %v", n1, n2, n3)
	}
	seen := map[netip.AddrPort]bool{n1: true, n2: true, n3: true}
	for _, a := range []netip.AddrPort{
		via(t, ls, "poolers", "n4/postgres", at("127.0.0.1:5433")), // the same IP
		via(t, ls, "replicas", "n1/postgres", at("127.0.0.1:5432")),
		via(t, ls, "poolers", "n1/patroni", at("127.0.0.1:8008")),
		via(t, ls, "envoy", "pgb-1", at("127.0.0.1:6432")),
		via(t, ls, "envoy", "pgb-2", at("127.0.0.1:6433")),
	} {
		if seen[a] {
			t.Errorf("%v is given twice", a)
		}
		seen[a] = true
	}
	want := "[envoy -> pgb-1 envoy -> pgb-2 poolers -> n1/patroni poolers -> n1/postgres poolers -> n2/postgres " +
		"poolers -> n3/postgres poolers -> n4/postgres replicas -> n1/postgres]"
	if got := fmt.Sprint(ls.list()); got != want {
		t.Errorf("list: %s\nwant  %s", got, want)
	}
}

func TestPortTaken(t *testing.T) {
	leaveNothing(t)
	ls := open(t)
	n1 := via(t, ls, "poolers", "n1/postgres", netip.MustParseAddrPort("127.0.0.1:5432"))
	other, err := net.Listen("tcp", fmt.Sprintf("127.0.0.2:%d", n1.Port()))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	_, err = ls.via("poolers", "n2/postgres", netip.MustParseAddrPort("127.0.0.2:5432"))
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), other.Addr().String()) {
		t.Errorf("a common port that is taken: %v", err)
	}
	if got := fmt.Sprint(ls.list()); got != "[poolers -> n1/postgres]" {
		t.Errorf("links after the failure: %s", got)
	}

	// Another stack does not take the port of a link that is cut.
	defer must(t)(ls.cut(Link{"poolers", "n1/postgres"}))()
	if p, err := takePort(n1.Port()); err == nil {
		p.mark.Close()
		t.Error("the port of a link that is cut was given away")
	}
}

func TestLinkMisuse(t *testing.T) {
	leaveNothing(t)
	ls := newLinks()
	if _, err := ls.cut(aToB); err == nil || !strings.Contains(err.Error(), "there is no link a -> b, nor any other") {
		t.Errorf("no links at all: %v", err)
	}
	addr := netip.MustParseAddrPort("127.0.0.1:5432")
	for _, c := range []struct {
		from, to string
		addr     netip.AddrPort
		want     string
	}{
		{"", "b", addr, "no name"},
		{"a", "", addr, "no name"},
		{"a", "b", netip.AddrPort{}, "leads nowhere"},
		{"a", "b", netip.MustParseAddrPort("127.0.0.1:0"), "leads nowhere"},
		{"a", "b", netip.MustParseAddrPort("0.0.0.0:5432"), "leads nowhere"},
	} {
		if _, err := ls.via(c.from, c.to, c.addr); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("via(%q, %q, %v): %v, want %q", c.from, c.to, c.addr, err, c.want)
		}
	}
	via(t, ls, "a", "b", addr)
	via(t, ls, "a", "c", addr)
	via(t, ls, "x", "y", addr)
	unknown := func(l Link, want string) {
		t.Helper()
		if _, err := ls.cut(l); err == nil || err.Error() != want {
			t.Errorf("cut of %v: %v\nwant %s", l, err, want)
		}
	}
	unknown(Link{"a", "d"}, "there is no link a -> d, but: a -> b, a -> c")
	unknown(Link{"p", "q"}, "there is no link p -> q, but: a -> b, a -> c, x -> y")
	for name, f := range map[string]func() (func() error, error){
		"Direction(3)":         func() (func() error, error) { return ls.halfOpen(aToB, 3) },
		"Direction(-1)":        func() (func() error, error) { return ls.halfOpen(aToB, -1) },
		"latency 0s":           func() (func() error, error) { return ls.delay(aToB, 0, 0) },
		"latency 1.5ms":        func() (func() error, error) { return ls.delay(aToB, 1500*time.Microsecond, 0) },
		"jitter -1ms":          func() (func() error, error) { return ls.delay(aToB, time.Second, -time.Millisecond) },
		"jitter 100µs":         func() (func() error, error) { return ls.delay(aToB, time.Second, 100*time.Microsecond) },
		"jitter 2s":            func() (func() error, error) { return ls.delay(aToB, time.Second, 2*time.Second) },
		"bytesPerSecond 0":     func() (func() error, error) { return ls.throttle(aToB, 0) },
		"bytesPerSecond -1000": func() (func() error, error) { return ls.throttle(aToB, -1000) },
		"bytesPerSecond 1500":  func() (func() error, error) { return ls.throttle(aToB, 1500) },
	} {
		if undo, err := f(); err == nil || undo != nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}

	undo := must(t)(ls.cut(aToB))
	if err := errors.Join(ls.close(), ls.close()); err != nil {
		t.Fatal(err)
	}
	undo()
	if _, err := ls.cut(aToB); !errors.Is(err, errClosed) {
		t.Errorf("a fault after the end: %v", err)
	}
	if _, err := ls.via("a", "b", addr); !errors.Is(err, errClosed) {
		t.Errorf("via after the end: %v", err)
	}
}

func TestCut(t *testing.T) {
	leaveNothing(t)
	s1, s2, s3 := serve(t, "127.0.0.1"), serve(t, "127.0.0.1"), serve(t, "127.0.0.1")
	ls := open(t)
	// Two addresses are one link: both are hit. Another link is not.
	a1, a2, a3 := via(t, ls, "a", "b", s1.addr), via(t, ls, "a", "b", s2.addr), via(t, ls, "a", "c", s3.addr)
	c1, c2, c3 := dial(t, a1), dial(t, a2), dial(t, a3)
	ask(t, c1, "one")
	ask(t, c2, "two")

	first := must(t)(ls.cut(aToB))
	broken(t, c1)
	broken(t, c2)
	if err := s1.ends(t); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the server's end of a link that is cut: %v, want a reset", err)
	}
	refused(t, a1)
	refused(t, a2)
	a4 := via(t, ls, "a", "b", s3.addr)
	refused(t, a4)
	ask(t, c3, "three")

	second := must(t)(ls.cut(aToB))
	first()
	first()
	refused(t, a1)
	refused(t, a2)
	second()
	ask(t, dial(t, a1), "four")
	ask(t, dial(t, a2), "five")
	ask(t, dial(t, a4), "five")
	first()
	second()
	ask(t, dial(t, a1), "six")
}

func TestCutPortTaken(t *testing.T) {
	leaveNothing(t)
	s := serve(t, "127.0.0.1")
	ls := open(t)
	a := via(t, ls, "a", "b", s.addr)
	undo, err := ls.cut(aToB)
	if err != nil {
		t.Fatal(err)
	}
	other, err := net.Listen("tcp", a.String())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := undo(); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "a -> b stays cut") ||
			!strings.Contains(err.Error(), a.String()) {
			t.Errorf("undo with the port taken: %v", err)
		}
	}
	if _, err := ls.delay(aToB, time.Millisecond, 0); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a fault on a link that stayed cut: %v", err)
	}
	other.Close()
	must(t)(ls.delay(aToB, time.Millisecond, 0))() // whatever comes next repairs it
	ask(t, dial(t, a), "hello")
}

func TestHalfOpen(t *testing.T) {
	for _, d := range []Direction{Both, Forward, Backward} {
		t.Run(d.String(), func(t *testing.T) {
			leaveNothing(t)
			s := serve(t, "127.0.0.1")
			ls := open(t)
			a := via(t, ls, "a", "b", s.addr)
			c := dial(t, a)
			ask(t, c, "before")
			s.hears(t, "before")
			undo := must(t)(ls.halfOpen(aToB, d))

			say(t, c, "during")
			if d == Backward {
				s.hears(t, "during")
			} else {
				s.deaf(t)
			}
			silent(t, c)
			another := dial(t, a)
			say(t, another, "new")
			if d == Backward {
				s.hears(t, "new")
			} else {
				s.deaf(t)
				if n := s.accepted.Load(); n != 1 {
					t.Errorf("%d connections have reached the server, want 1", n)
				}
			}
			silent(t, another)

			undo()
			hear(t, c, "during")
			hear(t, another, "new")
			ask(t, c, "after")
			ask(t, dial(t, a), "after")
		})
	}
}

// The end of a connection does not pass a link that is deaf, whichever end it was.
func TestHalfOpenHidesTheEnd(t *testing.T) {
	leaveNothing(t)
	s := serve(t, "127.0.0.1")
	ls := open(t)
	a := via(t, ls, "a", "b", s.addr)
	c := dial(t, a)
	ask(t, c, "hello")
	undo := must(t)(ls.halfOpen(aToB, Backward))
	s.hangUp()
	_ = s.ends(t)
	silent(t, c)
	undo()
	if err := c.SetReadDeadline(time.Now().Add(bound)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the undo: %v, want the end", err)
	}

	s = serve(t, "127.0.0.1")
	c = dial(t, via(t, ls, "a", "c", s.addr))
	ask(t, c, "hello")
	s.hears(t, "hello")
	undo = must(t)(ls.halfOpen(Link{"a", "c"}, Forward))
	c.Close()
	s.deaf(t)
	undo()
	if err := s.ends(t); !errors.Is(err, io.EOF) {
		t.Errorf("after the undo: %v, want EOF", err)
	}
}

// What is refused during the fault is a silence too.
func TestHalfOpenHidesARefusal(t *testing.T) {
	leaveNothing(t)
	ls := open(t)
	a := via(t, ls, "a", "b", nobody)
	for _, d := range []Direction{Both, Forward, Backward} {
		undo := must(t)(ls.halfOpen(aToB, d))
		c := dial(t, a)
		silent(t, c)
		undo()
		broken(t, c)
	}
}

func TestDelay(t *testing.T) {
	leaveNothing(t)
	s := serve(t, "127.0.0.1")
	ls := open(t)
	a := via(t, ls, "a", "b", s.addr)
	c := dial(t, a)
	ask(t, c, "before")
	s.hears(t, "before")

	short := must(t)(ls.delay(aToB, 150*time.Millisecond, 0))
	least := func(c net.Conn, want time.Duration) {
		t.Helper()
		if took := ask(t, c, "late"); took < want {
			t.Errorf("the answer took %v, want at least %v", took, want)
		}
		s.hears(t, "late")
	}
	least(c, 150*time.Millisecond)
	least(dial(t, a), 150*time.Millisecond)

	more := must(t)(ls.delay(aToB, 150*time.Millisecond, 50*time.Millisecond))
	least(c, 250*time.Millisecond)
	more()
	least(c, 150*time.Millisecond)

	// An undo takes its own delay only, and what waited for it arrives.
	endless := must(t)(ls.delay(aToB, long, 0))
	say(t, c, "question")
	s.hears(t, "question") // what goes forward is not late
	silent(t, c)
	endless()
	hear(t, c, "question")
	endless()
	least(c, 150*time.Millisecond)

	// What is late does not hold up what follows: piece by piece, this would take more than a minute.
	more = must(t)(ls.delay(aToB, 350*time.Millisecond, 0))
	words := strings.Repeat("0123456789", 500_000)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := io.WriteString(c, words); err != nil {
			t.Errorf("write: %v", err)
		}
	})
	hear(t, c, words)
	wg.Wait()
	more()
	short()
	ask(t, c, "after")
}

func TestThrottle(t *testing.T) {
	leaveNothing(t)
	s := serve(t, "127.0.0.1")
	ls := open(t)
	a := via(t, ls, "a", "b", s.addr)
	c := dial(t, a)
	ask(t, c, "before")

	wide := must(t)(ls.throttle(aToB, 100_000))
	for _, c := range []net.Conn{c, dial(t, a)} {
		if took := ask(t, c, strings.Repeat("x", 30_000)); took < 250*time.Millisecond {
			t.Errorf("30 kB at 100 kB/s took %v", took)
		}
	}
	// The lowest counts. Its undo is felt at once: what is left would take a quarter of an hour.
	narrow := must(t)(ls.throttle(aToB, 1000))
	words := strings.Repeat("0123456789", 100_000)
	var wg sync.WaitGroup
	start := time.Now()
	wg.Go(func() {
		if _, err := io.WriteString(c, words); err != nil {
			t.Errorf("write: %v", err)
		}
	})
	hear(t, c, words[:50])
	wide()
	hear(t, c, words[50:1000])
	if took := time.Since(start); took < 900*time.Millisecond {
		t.Errorf("1000 bytes at 1 kB/s took %v", took)
	}
	narrow()
	hear(t, c, words[1000:])
	wg.Wait()
}

// Faults come and go beside each other, over all that a connection can be doing.
func TestOverlap(t *testing.T) {
	leaveNothing(t)
	s := serve(t, "127.0.0.1")
	ls := open(t)
	a := via(t, ls, "a", "b", s.addr)
	c := dial(t, a)
	ask(t, c, "before")

	endless := must(t)(ls.delay(aToB, long, 0))
	narrow := must(t)(ls.throttle(aToB, 1000))
	say(t, c, "first")
	deaf := must(t)(ls.halfOpen(aToB, Backward))
	say(t, c, "second")
	endless()
	silent(t, c) // deaf still
	narrow()
	deaf()
	hear(t, c, "firstsecond")

	deaf = must(t)(ls.halfOpen(aToB, Both))
	cut := must(t)(ls.cut(aToB))
	broken(t, c)
	refused(t, a)
	cut()
	c = dial(t, a)
	say(t, c, "third")
	silent(t, c)
	deaf()
	hear(t, c, "third")
}

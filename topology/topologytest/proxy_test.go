package topologytest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A peer that does not read keeps no fault from coming and going, and loses nothing.
func TestPeerThatDoesNotRead(t *testing.T) {
	leaveNothing(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ls := open(t)
	a := via(t, ls, "a", "b", l.Addr().(*net.TCPAddr).AddrPort())
	c := dial(t, a)
	at, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	if err := at.(*net.TCPConn).SetReadBuffer(16 << 10); err != nil {
		t.Fatal(err)
	}
	sent := numbers(24 << 20) // more than all buffers on the way hold
	fast := must(t)(ls.throttle(aToB, 1_000_000_000))
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := c.Write(sent); err != nil {
			t.Errorf("write: %v", err)
		}
		_ = c.CloseWrite()
	})
	first := make([]byte, 1000)
	if _, err := io.ReadFull(at, first); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		must(t)(ls.throttle(aToB, 1000))()
		must(t)(ls.delay(aToB, long, 0))()
		must(t)(ls.halfOpen(aToB, Both))()
		fast()
	}
	if err := at.SetReadDeadline(time.Now().Add(bound)); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(at)
	if err != nil || !bytes.Equal(append(first, rest...), sent) {
		t.Errorf("read %d of %d bytes, %v", len(first)+len(rest), len(sent), err)
	}
	wg.Wait()
}

// A server that does not accept (one that is stopped, with a full backlog) blocks nobody but its clients.
func TestPeerThatDoesNotAccept(t *testing.T) {
	leaveNothing(t)
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	ip := [4]byte{127, 0, 0, 1}
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: ip}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	upstream := netip.AddrPortFrom(netip.AddrFrom4(ip), uint16(name.(*syscall.SockaddrInet4).Port))
	ls := open(t)
	a := via(t, ls, "a", "b", upstream)
	var conns []net.Conn
	for range 4 {
		c := dial(t, a)
		say(t, c, "hello")
		conns = append(conns, c)
	}
	silent(t, conns[3])
	undo := must(t)(ls.cut(aToB))
	for _, c := range conns {
		broken(t, c)
	}
	undo()
	dial(t, a) // and left to close
}

// Who still sends learns that nobody is left to hear, also when the answers have ended before.
func TestSenderLearnsOfTheEnd(t *testing.T) {
	leaveNothing(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ls := open(t)
	a := via(t, ls, "a", "b", l.Addr().(*net.TCPAddr).AddrPort())
	for _, rate := range []int{0, 1_000_000} {
		if rate > 0 {
			must(t)(ls.throttle(aToB, rate))
		}
		c := dial(t, a)
		say(t, c, "hello")
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		at := conn.(*net.TCPConn)
		hear(t, at, "hello")
		if err := at.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Fatalf("the end of the answers is %v, want EOF", err)
		}
		if err := errors.Join(at.SetLinger(0), at.Close()); err != nil {
			t.Fatal(err)
		}
		for stop := time.Now().Add(bound); ; time.Sleep(time.Millisecond) {
			if _, err := io.WriteString(c, "more"); err != nil {
				break
			}
			if time.Now().After(stop) {
				t.Fatal("the client still sends to nobody")
			}
		}
	}
}

// Whatever happens, close returns and nothing is left, not even a port.
func TestClose(t *testing.T) {
	for _, c := range []struct {
		name   string
		passes bool // what is said
		fault  func(ls *links) (func() error, error)
	}{
		{"no fault", true, func(*links) (func() error, error) { return nil, nil }},
		{"cut", false, func(ls *links) (func() error, error) { return ls.cut(aToB) }},
		{"deaf", false, func(ls *links) (func() error, error) { return ls.halfOpen(aToB, Both) }},
		{"delay", true, func(ls *links) (func() error, error) { return ls.delay(aToB, long, long/2) }},
		{"throttle", true, func(ls *links) (func() error, error) { return ls.throttle(aToB, 1000) }},
		{"delay and throttle", true, func(ls *links) (func() error, error) {
			_, err := ls.throttle(aToB, 1000)
			_, err2 := ls.delay(aToB, long, 0)
			return nil, errors.Join(err, err2)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			leaveNothing(t)
			s, later := serve(t, "127.0.0.1"), serve(t, "127.0.0.1")
			ls := newLinks()
			a, b := via(t, ls, "a", "b", s.addr), via(t, ls, "a", "b", later.addr)
			var wg sync.WaitGroup
			defer wg.Wait()
			talk := func(c net.Conn) {
				wg.Go(func() { _, _ = io.Copy(c, strings.NewReader(strings.Repeat("x", 1<<20))) })
			}
			conn := dial(t, a)
			ask(t, conn, "hello")
			talk(conn)
			if _, err := c.fault(ls); err != nil {
				t.Fatal(err)
			}
			if conn, err := net.Dial("tcp", b.String()); err == nil {
				defer conn.Close()
				talk(conn)
			}
			if c.passes {
				<-later.heard
			}
			start := time.Now()
			if err := ls.close(); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took > bound/2 {
				t.Errorf("close took %v", took)
			}
			for _, a := range []netip.AddrPort{a, b} {
				l, err := net.Listen("tcp", a.String())
				if err != nil {
					t.Fatalf("the port is not free: %v", err)
				}
				l.Close()
				p, err := takePort(a.Port())
				if err != nil {
					t.Fatalf("the port is not given back: %v", err)
				}
				p.mark.Close()
			}
		})
	}
}

// No byte is lost, doubled or moved while faults come and go.
func TestFaultsWhileDataFlows(t *testing.T) {
	leaveNothing(t)
	s := serve(t, "127.0.0.1")
	ls := open(t)
	a := via(t, ls, "a", "b", s.addr)
	faults := []func() (func() error, error){
		func() (func() error, error) { return ls.delay(aToB, 3*time.Millisecond, 2*time.Millisecond) },
		func() (func() error, error) { return ls.throttle(aToB, 20_000_000) },
		func() (func() error, error) { return ls.halfOpen(aToB, Direction(rand.IntN(3))) },
	}
	end := make(chan struct{})
	var busy, all sync.WaitGroup
	for _, inject := range faults {
		all.Go(func() {
			for {
				undo, err := inject()
				if err == nil {
					time.Sleep(time.Duration(rand.IntN(4)) * time.Millisecond) // the length of the fault
					err = undo()
				}
				if err != nil {
					t.Errorf("fault: %v", err)
				}
				select {
				case <-end:
					return
				default:
				}
			}
		})
	}
	sent := numbers(2 << 20)
	for range 4 {
		c := dial(t, a)
		busy.Go(func() {
			for rest := sent; len(rest) > 0; {
				n := min(len(rest), 1+rand.IntN(60_000))
				if _, err := c.Write(rest[:n]); err != nil {
					t.Errorf("write: %v", err)
					break
				}
				rest = rest[n:]
			}
			_ = c.CloseWrite()
		})
		busy.Go(func() {
			_ = c.SetReadDeadline(time.Now().Add(2 * time.Minute))
			if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, sent) {
				t.Errorf("read %d of %d bytes, %v", len(got), len(sent), err)
			}
		})
	}
	busy.Wait()
	close(end)
	all.Wait()
}

// Cuts come beside all else, with clients that come back.
func TestCutsWhileDataFlows(t *testing.T) {
	leaveNothing(t)
	s := serve(t, "127.0.0.1")
	ls := open(t)
	a := via(t, ls, "a", "b", s.addr)
	end := make(chan struct{})
	var answers atomic.Int32
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-end:
					return
				default:
				}
				c, err := net.Dial("tcp", a.String())
				if err != nil {
					continue
				}
				words := fmt.Sprintf("words %d", n)
				for err == nil {
					got := make([]byte, len(words))
					if _, err = io.WriteString(c, words); err == nil {
						_, err = io.ReadFull(c, got)
					}
					if err == nil && string(got) != words {
						t.Errorf("said %q, heard %q", words, got)
					}
					if err == nil {
						answers.Add(1)
					}
				}
				c.Close()
			}
		})
	}
	for range 30 {
		late := must(t)(ls.delay(aToB, time.Millisecond, 0))
		cut := must(t)(ls.cut(aToB))
		refused(t, a)
		cut()
		for want, stop := answers.Load()+4, time.Now().Add(bound); answers.Load() < want; time.Sleep(time.Millisecond) {
			if time.Now().After(stop) {
				t.Fatal("nobody is answered after the undo")
			}
		}
		late()
	}
	close(end)
	must(t)(ls.cut(aToB))() // ends their talks
	wg.Wait()
}

// numbers are bytes of which no two blocks are alike.
func numbers(n int) []byte {
	b := make([]byte, n)
	for i := 0; i+4 <= n; i += 4 {
		b[i], b[i+1], b[i+2], b[i+3] = byte(i>>26), byte(i>>18), byte(i>>10), byte(i>>2)
	}
	return b
}

func BenchmarkRoundTrip(b *testing.B) {
	s := serve(b, "127.0.0.1")
	ls := open(b)
	a := via(b, ls, "a", "b", s.addr)
	for _, way := range []struct {
		name string
		addr netip.AddrPort
	}{{"direct", s.addr}, {"proxy", a}} {
		b.Run(way.name, func(b *testing.B) {
			c := dial(b, way.addr)
			words, got := []byte(strings.Repeat("x", 100)), make([]byte, 100)
			for b.Loop() {
				if _, err := c.Write(words); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(c, got); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

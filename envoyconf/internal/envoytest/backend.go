package envoytest

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// Backend answers like a PgBouncer as far as Envoy looks: N to an SSLRequest. To any line it answers "<its address> <line>".
type Backend struct {
	t    testing.TB
	Addr netip.AddrPort

	mu    sync.Mutex
	l     net.Listener
	conns map[net.Conn]bool
	mute  bool
	wg    sync.WaitGroup
}

// NewBackend listens on a free loopback port until the test ends.
func NewBackend(t testing.TB) *Backend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &Backend{t: t, Addr: l.Addr().(*net.TCPAddr).AddrPort(), l: l, conns: map[net.Conn]bool{}}
	b.wg.Go(func() { b.accept(l) })
	t.Cleanup(func() {
		b.Kill()
		b.wg.Wait()
	})
	return b
}

// StopListening closes the listening socket and keeps the connections, like a PgBouncer that waits for its clients.
func (b *Backend) StopListening() { b.l.Close() }

// Hang leaves everything unanswered from now on.
func (b *Backend) Hang() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mute = true
}

// Kill closes everything.
func (b *Backend) Kill() {
	b.l.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.conns {
		c.Close()
	}
}

func (b *Backend) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		b.mu.Lock()
		b.conns[c] = true
		b.mu.Unlock()
		b.wg.Go(func() {
			b.serve(c)
			c.Close()
			b.mu.Lock()
			defer b.mu.Unlock()
			delete(b.conns, c)
		})
	}
}

func (b *Backend) hangs() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mute
}

func (b *Backend) serve(c net.Conn) {
	r := bufio.NewReader(c)
	for {
		head, err := r.Peek(1)
		if err != nil {
			return
		}
		if b.hangs() {
			_, _ = io.Copy(io.Discard, r)
			return
		}
		if head[0] == 0 {
			var ssl [8]byte
			if _, err := io.ReadFull(r, ssl[:]); err != nil || binary.BigEndian.Uint32(ssl[4:]) != 80877103 {
				return
			}
			_, _ = c.Write([]byte("N"))
			continue
		}
		line, err := r.ReadString('\n')
		if err != nil || b.hangs() {
			return
		}
		fmt.Fprintf(c, "%s %s", b.Addr, line)
	}
}

// Client is one client connection through Envoy.
type Client struct {
	net.Conn
	r *bufio.Reader
}

// Dial connects; Envoy accepts before it has a backend, so only Ask shows whether there is one.
func Dial(t testing.TB, to netip.AddrPort) *Client {
	t.Helper()
	c, err := net.DialTimeout("tcp", to.String(), answers)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &Client{Conn: c, r: bufio.NewReader(c)}
}

// Once connects, asks and closes.
func Once(to netip.AddrPort) (netip.AddrPort, error) {
	c, err := net.DialTimeout("tcp", to.String(), answers)
	if err != nil {
		return netip.AddrPort{}, err
	}
	defer c.Close()
	return (&Client{Conn: c, r: bufio.NewReader(c)}).Ask()
}

// Ask sends a line and returns the address of the backend that answered.
func (c *Client) Ask() (netip.AddrPort, error) {
	if err := c.SetDeadline(time.Now().Add(answers)); err != nil {
		return netip.AddrPort{}, err
	}
	if _, err := fmt.Fprintln(c, "hello"); err != nil {
		return netip.AddrPort{}, err
	}
	line, err := c.r.ReadString('\n')
	if err != nil {
		return netip.AddrPort{}, err
	}
	var addr, word string
	if _, err := fmt.Sscan(line, &addr, &word); err != nil {
		return netip.AddrPort{}, err
	}
	return netip.ParseAddrPort(addr)
}

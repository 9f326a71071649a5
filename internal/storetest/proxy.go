package storetest

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
)

// Proxy stands between one client and one server, to break their path.
type Proxy struct {
	l  net.Listener
	wg sync.WaitGroup

	mu      sync.Mutex
	change  *sync.Cond
	target  netip.AddrPort
	cut     bool    // no connections
	refused int     // connections, while cut
	held    [2]bool // by direction: what comes is kept back
	conns   map[net.Conn]struct{}
}

// Directions of what goes through a Proxy.
const (
	requests = iota
	answers
)

// NewProxy leads to target until the test ends.
func NewProxy(t testing.TB, target netip.AddrPort) *Proxy {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{l: l, target: target, conns: make(map[net.Conn]struct{})}
	p.change = sync.NewCond(&p.mu)
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.Cut()
		p.wg.Wait()
	})
	return p
}

// Addr is where clients connect to.
func (p *Proxy) Addr() netip.AddrPort { return p.l.Addr().(*net.TCPAddr).AddrPort() }

// Cut ends all connections and refuses new ones until it is healed.
func (p *Proxy) Cut() (heal func()) {
	p.set(func() { p.cut = true })
	p.Break()
	return func() { p.set(func() { p.cut = false }) }
}

// Break ends all connections; new ones are let through. What was kept back is lost.
func (p *Proxy) Break() {
	p.set(func() {
		for c := range p.conns {
			_ = c.Close()
			delete(p.conns, c)
		}
	})
}

// Refused is how many connections were tried while it was cut.
func (p *Proxy) Refused() (n int) {
	p.set(func() { n = p.refused })
	return n
}

// Lead ends all connections; new ones lead to another server.
func (p *Proxy) Lead(target netip.AddrPort) {
	p.set(func() { p.target = target })
	p.Break()
}

// Mute keeps back what the server says, and the end of its connections, until it is healed: requests arrive, answers
// do not.
func (p *Proxy) Mute() (heal func()) {
	p.set(func() { p.held[answers] = true })
	return func() { p.set(func() { p.held[answers] = false }) }
}

// Halt keeps everything back until it is healed, as if the client's process were stopped: nothing is lost.
func (p *Proxy) Halt() (heal func()) {
	p.set(func() { p.held = [2]bool{true, true} })
	return func() { p.set(func() { p.held = [2]bool{} }) }
}

func (p *Proxy) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	p.change.Broadcast()
}

func (p *Proxy) accept() {
	for {
		client, err := p.l.Accept()
		if err != nil {
			return
		}
		var target netip.AddrPort
		p.set(func() { target = p.target })
		server, err := net.Dial("tcp", target.String()) //nolint:noctx // loopback answers at once
		if err != nil {
			_ = client.Close()
			continue
		}
		if !p.add(client, server) {
			_, _ = client.Close(), server.Close()
			continue
		}
		p.wg.Go(func() { p.pipe(server, client, requests) })
		p.wg.Go(func() { p.pipe(client, server, answers) })
	}
}

func (p *Proxy) add(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut {
		p.refused++
		return false
	}
	for _, c := range conns {
		p.conns[c] = struct{}{}
	}
	return true
}

// pipe copies one direction until either end closes.
func (p *Proxy) pipe(to, from net.Conn, direction int) {
	defer func() {
		_, _ = to.Close(), from.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, to)
		delete(p.conns, from)
		p.change.Broadcast() // the other direction may wait
	}()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if !p.pass(from, direction) {
			return
		}
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			_, _ = io.Copy(io.Discard, from)
			return
		}
	}
}

// pass waits while a direction is held; false: the connection was broken meanwhile.
func (p *Proxy) pass(conn net.Conn, direction int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.held[direction] && !p.cut {
		if _, ok := p.conns[conn]; !ok {
			return false
		}
		p.change.Wait()
	}
	return !p.cut
}

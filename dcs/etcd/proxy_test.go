package etcd_test

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
)

// proxy stands between a client and the server, to cut and to silence their connections.
type proxy struct {
	l       net.Listener
	target  string
	refused chan struct{} // receives each connection that was not allowed, as far as there is room
	wg      sync.WaitGroup

	mu     sync.Mutex
	thaw   *sync.Cond
	frozen bool // servers' answers are held back; requests go through
	cut    bool // no connections
	conns  map[net.Conn]struct{}
}

func newProxy(t testing.TB, endpoint string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{l: l, target: strings.TrimPrefix(endpoint, "http://"), refused: make(chan struct{}, 100), conns: make(map[net.Conn]struct{})}
	p.thaw = sync.NewCond(&p.mu)
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.Cut(true)
		p.wg.Wait()
	})
	return p
}

func (p *proxy) Endpoint() string {
	return "http://" + netip.MustParseAddrPort(p.l.Addr().String()).String()
}

// Cut ends all connections and refuses new ones, or allows them again.
func (p *proxy) Cut(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut, p.frozen = cut, false
	for c := range p.conns {
		_ = c.Close()
	}
	p.thaw.Broadcast()
}

// Freeze holds every answer of the server back, or lets them go again. Nothing is lost.
func (p *proxy) Freeze(frozen bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frozen = frozen
	p.thaw.Broadcast()
}

func (p *proxy) accept() {
	for {
		client, err := p.l.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		target := p.target
		p.mu.Unlock()
		server, err := net.Dial("tcp", target)
		if err != nil || !p.add(client, server) {
			_ = client.Close()
			continue
		}
		p.wg.Go(func() { p.pipe(server, client, false) })
		p.wg.Go(func() { p.pipe(client, server, true) })
	}
}

func (p *proxy) add(client, server net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut {
		_ = server.Close()
		select {
		case p.refused <- struct{}{}:
		default:
		}
		return false
	}
	p.conns[client], p.conns[server] = struct{}{}, struct{}{}
	return true
}

func (p *proxy) pipe(to, from net.Conn, answers bool) {
	defer func() {
		_ = to.Close()
		_ = from.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, to)
		delete(p.conns, from)
	}()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if answers {
			p.mu.Lock()
			for p.frozen {
				p.thaw.Wait()
			}
			p.mu.Unlock()
		}
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			_, _ = io.Copy(io.Discard, from)
			return
		}
	}
}

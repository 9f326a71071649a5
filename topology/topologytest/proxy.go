package topologytest

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Shopify/toxiproxy/v2/stream"
	"github.com/Shopify/toxiproxy/v2/toxics"
)

// proxy accepts connections at one address and leads them to another. Where the other end refuses, a client is accepted
// and then reset.
//
// What is slow goes through toxics of toxiproxy. Its Proxy and its links are not used: they hang for as long as a peer
// does not read, or does not accept, when a toxic is added or taken away, or the proxy is stopped; which is exactly
// where tests use faults.
type proxy struct {
	addr, upstream netip.AddrPort
	state          *atomic.Pointer[condition] // of its link

	listener *net.TCPListener // nil: stopped. Guarded by links.mu, like start and stop.
	accepted chan struct{}    // closed when the listener's loop has ended

	mu       sync.Mutex
	passages map[*passage]bool
	wg       sync.WaitGroup // of the passages
}

// start listens, unless it does already.
func (p *proxy) start() error {
	if p.listener != nil {
		return nil
	}
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(p.addr))
	if err != nil {
		return err
	}
	p.listener, p.accepted, p.passages = l, make(chan struct{}), map[*passage]bool{}
	go p.accept(l, p.accepted)
	return nil
}

// stop refuses new connections, resets those that are there, and returns when nothing runs any more.
func (p *proxy) stop() {
	if p.listener == nil {
		return
	}
	_ = p.listener.Close() // it is open, and closing it cannot fail otherwise
	p.listener = nil
	<-p.accepted
	p.mu.Lock()
	for c := range p.passages {
		c.reset()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

func (p *proxy) accept(l *net.TCPListener, done chan<- struct{}) {
	defer close(done)
	for {
		client, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // no file descriptor is free: others must close theirs
			continue
		}
		ctx, cancel := context.WithCancel(context.Background())
		c := &passage{p: p, client: client, gone: ctx.Done(), end: cancel}
		p.mu.Lock()
		p.passages[c] = true
		p.mu.Unlock()
		p.wg.Go(func() {
			c.serve(ctx)
			c.close()
			p.mu.Lock()
			delete(p.passages, c)
			p.mu.Unlock()
		})
	}
}

// passage is one connection through a proxy.
type passage struct {
	p    *proxy
	gone <-chan struct{} // closed when the passage is over
	end  func()

	mu             sync.Mutex
	client, server *net.TCPConn // server is nil before it is there
}

func (c *passage) serve(ctx context.Context) {
	if !c.open(Forward) { // the wish for a connection goes that way
		return
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", c.p.upstream.String())
	if err != nil {
		c.open(Backward) // and its refusal that way
		c.reset()
		return
	}
	server := conn.(*net.TCPConn)
	if !c.join(server) {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { c.carry(Forward, c.client, server) })
	wg.Go(func() { c.carry(Backward, server, c.client) })
	wg.Wait()
}

// join makes a connection part of the passage, unless that is over.
func (c *passage) join(server *net.TCPConn) bool {
	c.mu.Lock()
	c.server = server
	c.mu.Unlock()
	select {
	case <-c.gone:
		c.reset()
		return false
	default:
		return true
	}
}

// reset ends both connections so that each end sees a reset.
func (c *passage) reset() { c.finish(func(conn *net.TCPConn) { _ = conn.SetLinger(0) }) }

func (c *passage) close() { c.finish(func(*net.TCPConn) {}) }

func (c *passage) finish(last func(*net.TCPConn)) {
	c.end()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range []*net.TCPConn{c.client, c.server} {
		if conn != nil {
			last(conn)
			_ = conn.Close() // it may be closed, and its peer may be gone
		}
	}
}

// open waits while the link is deaf in this direction. It reports false when the passage is over before.
func (c *passage) open(d Direction) bool {
	for {
		state := c.p.state.Load()
		if !state.way(d).deaf {
			return true
		}
		select {
		case <-state.changed:
		case <-c.gone:
			return false
		}
	}
}

// carry hands on what src says until it ends or dst is gone. The other direction goes on: it may have last words.
func (c *passage) carry(d Direction, src, dst *net.TCPConn) {
	var l *line // nil: nothing is under way
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		for rest := buf[:n]; len(rest) > 0; {
			state := c.p.state.Load()
			now := state.way(d).slow
			if l != nil && l.slow != now {
				l.end()
				l = nil
			}
			if now == (slow{}) {
				c.write(d, src, dst, rest)
				break
			}
			if l == nil {
				l = c.newLine(d, src, dst, state)
			}
			rest = l.put(rest, state.changed, c.gone)
		}
		if err == nil {
			continue
		}
		if l != nil {
			l.end()
		}
		switch {
		case !c.open(d) || errors.Is(err, os.ErrDeadlineExceeded): // the passage is over, or dst is gone: see write
		case errors.Is(err, io.EOF):
			_ = dst.CloseWrite() // it may be gone
		default:
			c.reset()
		}
		return
	}
}

// write hands data on when the link is not deaf. When dst is gone it ends the reading from src.
func (c *passage) write(d Direction, src, dst *net.TCPConn, data []byte) {
	if !c.open(d) {
		return
	}
	if _, err := dst.Write(data); err != nil {
		_ = src.SetReadDeadline(time.Unix(1, 0)) // it may be closed already
	}
}

// line carries slow data, in order.
type line struct {
	slow slow
	in   chan *stream.StreamChunk
	done chan struct{} // closed when all has been handed on
}

func (c *passage) newLine(d Direction, src, dst *net.TCPConn, state *condition) *line {
	l := &line{slow: state.way(d).slow, done: make(chan struct{})}
	latency := &toxics.LatencyToxic{Latency: l.slow.latency.Milliseconds(), Jitter: l.slow.jitter.Milliseconds()}
	under := 0 // chunks that can be under way
	if l.slow.latency > 0 {
		under = latency.GetBufferSize()
	}
	l.in = make(chan *stream.StreamChunk, under)
	out, flush := l.in, make(chan struct{})
	if l.slow.rate > 0 {
		// Never flushed: interrupted, it drops what nobody takes within five seconds. It holds one small piece.
		l.in = make(chan *stream.StreamChunk)
		c.stage(&toxics.BandwidthToxic{Rate: int64(l.slow.rate / 1000)}, l.in, out, nil)
	}
	if l.slow.latency > 0 {
		late := make(chan *stream.StreamChunk)
		c.stage(latency, out, late, flush)
		out = late
	}
	c.p.wg.Go(func() {
		defer close(l.done)
		for chunk := range out {
			c.write(d, src, dst, chunk.Data)
		}
	})
	c.p.wg.Go(func() {
		defer close(flush)
		for state.way(d).slow == l.slow {
			select {
			case <-state.changed:
				state = c.p.state.Load()
			case <-c.gone:
				return
			case <-l.done:
				return
			}
		}
	})
	return l
}

// stage runs a toxic from one channel to another. When flush is closed, what is in it goes on at once.
func (c *passage) stage(t toxics.Toxic, in, out chan *stream.StreamChunk, flush chan struct{}) {
	stub := toxics.NewToxicStub(in, out)
	stub.Interrupt = flush
	c.p.wg.Go(func() {
		t.Pipe(stub)
		for chunk := range in {
			out <- chunk
		}
		stub.Close()
	})
}

// put sends the first piece of data along and returns the rest: all of it if the link's condition changes before, none
// when the passage is over.
func (l *line) put(data []byte, changed, gone <-chan struct{}) []byte {
	n := len(data)
	if l.slow.rate > 0 {
		n = min(n, l.slow.rate/50) // 20 ms: the end of the throttling is soon felt
	}
	select {
	case l.in <- &stream.StreamChunk{Data: slices.Clone(data[:n]), Timestamp: time.Now()}:
		return data[n:]
	case <-changed:
		return data
	case <-gone:
		return nil
	}
}

// end returns when all that is under way has been handed on.
func (l *line) end() {
	close(l.in)
	<-l.done
}

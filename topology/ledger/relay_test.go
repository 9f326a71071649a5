package ledger_test

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// relay forwards connections to an address that can be changed, as a router
// does: connections that exist stay where they are.
type relay struct {
	ln       net.Listener
	target   atomic.Pointer[string]
	accepted atomic.Int64
	wg       sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
}

func newRelay(t *testing.T, target string) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{ln: ln}
	r.to(target)
	r.wg.Go(r.serve)
	t.Cleanup(func() {
		_ = ln.Close()
		r.cut()
		r.wg.Wait()
	})
	return r
}

func (r *relay) dsn() string { return dsnOf(r.ln.Addr().String()) }

// to sends new connections to another address.
func (r *relay) to(target string) { r.target.Store(&target) }

// cut ends all connections.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		_ = c.Close()
	}
	r.conns = nil
}

func (r *relay) serve() {
	for {
		client, err := r.ln.Accept()
		if err != nil {
			return
		}
		r.accepted.Add(1)
		server, err := net.Dial("tcp", *r.target.Load())
		if err != nil {
			_ = client.Close()
			continue
		}
		r.mu.Lock()
		r.conns = append(r.conns, client, server)
		r.mu.Unlock()
		r.pipe(client, server)
		r.pipe(server, client)
	}
}

func (r *relay) pipe(from, to net.Conn) {
	r.wg.Go(func() {
		_, _ = io.Copy(to, from)
		_ = to.Close()
		_ = from.Close()
	})
}

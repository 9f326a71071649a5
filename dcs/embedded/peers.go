package embedded

import (
	"io"
	"log"
	"net/http"
	"net/netip"
	"net/url"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/etcdhttp"
	"go.etcd.io/etcd/server/v3/etcdserver/api/rafthttp"
)

// peers is where the other members reach this one. etcd's own listener takes connections before it answers, so that
// members that start at the same time wait for each other, a second for each; and its end waits for the others.
type peers struct {
	server  http.Server
	handler atomic.Pointer[http.Handler] // nil: this member is not that far
	served  chan struct{}
}

func listenForPeers(addr netip.AddrPort) (*peers, error) {
	l, err := rafthttp.NewListener(url.URL{Scheme: "http", Host: addr.String()}, nil)
	if err != nil {
		return nil, err
	}
	p := &peers{served: make(chan struct{})}
	p.server = http.Server{
		Handler: p, ReadTimeout: 5 * time.Minute, // as etcd has it
		ErrorLog: log.New(io.Discard, "", 0),
	}
	go func() {
		defer close(p.served)
		_ = p.server.Serve(l) // until Close
	}()
	return p, nil
}

// join lets the others in.
func (p *peers) join(e *embed.Etcd) {
	h := etcdhttp.NewPeerHandler(e.GetLogger(), e.Server)
	p.handler.Store(&h)
}

func (p *peers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h := p.handler.Load(); h != nil {
		(*h).ServeHTTP(w, r)
		return
	}
	http.Error(w, "starting", http.StatusServiceUnavailable)
}

func (p *peers) close() error {
	err := p.server.Close()
	<-p.served
	return err
}

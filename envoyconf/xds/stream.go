package xds

import (
	"context"
	"maps"
	"time"

	"google.golang.org/grpc/peer"

	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/delta/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"

	"github.com/pgconvoy/pgconvoy/internal/mutant"
)

// stream is one connected Envoy: what it asked for, has, and refused. It is the cache and the callbacks of a protocol
// server of its own, so nothing has to be looked up by node or stream id. The rules are here; sotw.go and delta.go fit
// them to the two variants of the protocol. The server's mutex guards its fields.
type stream struct {
	server  *Server
	address string
	since   time.Time
	greeted bool   // the first request for endpoints has come
	node    string // its node id

	wanted   map[string]bool          // services that it asked for
	has      map[string]string        // versions that it acknowledged; a subset of wanted
	rejected map[string]refusal       // versions that it refused
	sent     map[string]content       // by nonce: responses that it has not answered yet
	offered  content                  // a response on its way to the wire, which has no nonce yet
	offer    func(content, published) // the open watch; nil while the protocol server takes no response
}

type content struct{ service, version string }

type refusal struct{ version, reason string }

var (
	_ cache.ConfigWatcher = (*stream)(nil)
	_ sotw.Callbacks      = (*stream)(nil)
	_ delta.Callbacks     = (*stream)(nil)
)

func (s *Server) open(ctx context.Context) *stream {
	st := &stream{
		server: s, since: time.Now(),
		wanted: map[string]bool{}, has: map[string]string{}, rejected: map[string]refusal{}, sent: map[string]content{},
	}
	if p, ok := peer.FromContext(ctx); ok {
		st.address = p.Addr.String()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams[st] = struct{}{}
	return st
}

func (st *stream) close() {
	s := st.server
	s.mu.Lock()
	delete(s.streams, st)
	s.notify()
	s.mu.Unlock()
	s.log.Info("envoy disconnected", "node", st.node, "address", st.address)
}

// greet takes the first request for endpoints: what an Envoy that was connected before says it still has.
func (st *stream) greet(node string, has map[string]string) {
	st.greeted = true
	st.node = node
	maps.Copy(st.has, has)
	st.server.notify()
}

// subscribe takes the set of services that the Envoy asks for from now on. An Envoy drops what it does not ask for, so
// such a service is sent anew when it asks again.
func (st *stream) subscribe(services map[string]struct{}) {
	for service := range st.has {
		if _, ok := services[service]; !ok {
			st.forget(service)
		}
	}
	for service := range st.wanted {
		if _, ok := services[service]; !ok {
			st.forget(service)
			delete(st.wanted, service)
			delete(st.rejected, service)
			st.server.notify()
		}
	}
	for service := range services {
		if !st.wanted[service] {
			st.wanted[service] = true
			st.server.notify()
		}
	}
}

// forget makes the service one that the Envoy does not have, so that it is sent anew.
func (st *stream) forget(service string) {
	delete(st.has, service)
	for nonce, c := range st.sent {
		if c.service == service {
			delete(st.sent, nonce)
		}
	}
	if st.offered.service == service {
		st.offered = content{}
	}
}

// sending records that a response goes out under a nonce.
func (st *stream) sending(nonce string, c content) {
	st.sent[nonce] = c
	if st.offered == c {
		st.offered = content{}
	}
}

// answered takes the answer to a response: an acknowledgement, or, when reason is not empty, a rejection. It returns
// what was answered, if anything.
func (st *stream) answered(nonce, reason string) content {
	c, ok := st.sent[nonce]
	if !ok {
		return content{}
	}
	delete(st.sent, nonce)
	if reason != "" {
		st.rejected[c.service] = refusal{version: c.version, reason: reason}
	} else {
		st.has[c.service] = c.version
		delete(st.rejected, c.service)
	}
	st.server.notify()
	return c
}

// flush offers one service that the Envoy should have and has not, if the protocol server takes a response now. The
// next one follows the answer. What the Envoy refused is not offered again until it changes: in the state-of-the-world
// variant a rejection reads as a request for the same thing, which would go on in a tight loop.
func (st *stream) flush() {
	if st.offer == nil {
		return
	}
	for service := range st.wanted {
		p, ok := st.server.services[service]
		c := content{service, p.version}
		refused := st.rejected[service].version == c.version && !mutant.Is("law9-refused-is-not-sent-again")
		if !ok || st.has[service] == c.version || refused || st.awaits(c) {
			continue
		}
		offer := st.offer
		st.offer, st.offered = nil, c
		offer(c, p)
		return
	}
}

func (st *stream) awaits(c content) bool {
	if st.offered == c {
		return true
	}
	for _, a := range st.sent {
		if a == c {
			return true
		}
	}
	return false
}

// cancel closes the open watch: the protocol server takes no response any more.
func (st *stream) cancel() {
	st.server.mu.Lock()
	defer st.server.mu.Unlock()
	st.offer = nil
}

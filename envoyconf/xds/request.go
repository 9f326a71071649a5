package xds

import (
	"strings"

	"google.golang.org/genproto/googleapis/rpc/status"
)

// request is what both variants of the protocol say in a request for endpoints.
type request struct {
	node    string
	nonce   string
	refusal *status.Status    // nil: not a rejection
	has     map[string]string // only in the first request: what the Envoy had before
	anew    []string          // services to be sent anew
}

// heard takes a request, before its subscription.
func (st *stream) heard(r request) {
	s := st.server
	s.mu.Lock()
	first := !st.greeted
	if first {
		st.greet(r.node, r.has)
	}
	c := st.answered(r.nonce, reason(r.refusal))
	if !first {
		for _, service := range r.anew {
			st.forget(service)
		}
	}
	s.mu.Unlock()

	if first {
		s.log.Info("envoy connected", "node", st.node, "address", st.address)
	}
	if r.refusal != nil {
		s.log.Warn("envoy rejected endpoints", "node", st.node, "address", st.address,
			"service", c.service, "version", c.version, "reason", reason(r.refusal))
	}
}

// reason is the Envoy's own words, on one line and bounded; empty for an acknowledgement only. What Envoy appends for
// debugging, the whole response as text, is cut off.
func reason(refusal *status.Status) string {
	if refusal == nil {
		return ""
	}
	text, _, _ := strings.Cut(refusal.GetMessage(), "goo.gle/debug")
	text = strings.Join(strings.Fields(text), " ")
	if text == "" {
		return "no reason given"
	}
	const limit = 500
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "..."
	}
	return text
}

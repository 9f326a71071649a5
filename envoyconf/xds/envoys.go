package xds

import (
	"cmp"
	"slices"

	"github.com/pgconvoy/pgconvoy/envoyconf"
)

// Envoys returns what each connected Envoy has, sorted by node id and address.
func (s *Server) Envoys() []envoyconf.EnvoyStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []envoyconf.EnvoyStatus
	for st := range s.streams {
		if !st.greeted {
			continue
		}
		e := envoyconf.EnvoyStatus{
			Node: st.node, Address: st.address, Since: st.since,
			Applied: map[string]string{}, Rejected: map[string]string{},
		}
		for service := range st.wanted {
			e.Applied[service] = st.has[service]
			if r, ok := st.rejected[service]; ok && r.version == s.services[service].version {
				e.Rejected[service] = r.reason
			}
		}
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b envoyconf.EnvoyStatus) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Address, b.Address))
	})
	return all
}

// Changed returns a channel that is closed at the next change of what Envoys returns. Take it before Envoys, and no
// change is missed:
//
//	for {
//		changed := server.Changed()
//		publish(server.Envoys())
//		<-changed
//	}
func (s *Server) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.changed
}

// notify wakes whoever took Changed. The mutex is held.
func (s *Server) notify() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

package xds

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// ErrSuperseded says that the version waited for is not the newest of its service, so that no Envoy may ever have it.
var ErrSuperseded = errors.New("xds: not the newest version of the service")

// WaitError says why Envoys do not have a version. An Envoy is named by its node id.
type WaitError struct {
	Service, Version string
	Missing          []string          // connected, and have not answered yet
	Rejected         map[string]string // by node: Envoy's reason. Final for this version
	Err              error             // why waiting ended; nil when only rejections are left
}

// Error lists the Envoys.
func (e *WaitError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "xds: %s version %s is not applied everywhere", e.Service, e.Version)
	if len(e.Missing) > 0 {
		fmt.Fprintf(&b, "; missing: %s", strings.Join(e.Missing, ", "))
	}
	for _, node := range slices.Sorted(maps.Keys(e.Rejected)) {
		fmt.Fprintf(&b, "; %s rejected it: %s", node, e.Rejected[node])
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

// Unwrap returns Err.
func (e *WaitError) Unwrap() error { return e.Err }

// Wait blocks until every connected Envoy that asked for the service has applied this version: acknowledged it; its
// worker threads follow within a moment. It fails with
// [ErrSuperseded] when another version is, or becomes, the newest one, and with a [*WaitError] when nothing but
// rejections is left, or when ctx ends (its cause is in the chain).
//
// Without a connected Envoy it returns nil: no Envoy of this control plane has anything older, and one that connects
// later gets the newest before it serves. Whoever needs a certain Envoy to be there looks for it in [Server.Envoys].
func (s *Server) Wait(ctx context.Context, service, version string) error {
	for {
		changed := s.Changed()
		if settled, err := s.settled(service, version); settled {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			err := s.why(service, version)
			err.Err = context.Cause(ctx)
			return err
		}
	}
}

// settled says whether there is nothing to wait for any more, and with what outcome. It runs at each answer of each
// Envoy, so it stops at the first one that is missing.
func (s *Server) settled(service, version string) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if newest := s.services[service].version; newest != version {
		return true, fmt.Errorf("%w: %s has version %q, waited for %q", ErrSuperseded, service, newest, version)
	}
	rejected := false
	for st := range s.streams {
		switch st.standing(service, version) {
		case missing:
			return false, nil
		case refused:
			rejected = true
		}
	}
	if rejected {
		return true, s.whyLocked(service, version)
	}
	return true, nil
}

func (s *Server) why(service, version string) *WaitError {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.whyLocked(service, version)
}

func (s *Server) whyLocked(service, version string) *WaitError {
	w := &WaitError{Service: service, Version: version, Rejected: map[string]string{}}
	for st := range s.streams {
		switch st.standing(service, version) {
		case missing:
			w.Missing = append(w.Missing, st.node)
		case refused:
			w.Rejected[st.node] = st.rejected[service].reason
		}
	}
	slices.Sort(w.Missing)
	return w
}

// standing is where one Envoy stands with a version of a service.
type standing int

const (
	fine    standing = iota // has it, or never asked for the service
	missing                 // has not answered
	refused
)

func (st *stream) standing(service, version string) standing {
	switch {
	case !st.wanted[service] || st.has[service] == version:
		return fine
	case st.rejected[service].version == version:
		return refused
	}
	return missing
}

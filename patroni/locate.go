package patroni

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"net"
	"net/netip"
)

// sighting is a state of the store with the members' addresses.
type sighting struct {
	Cluster
	homes map[string]home // by member, also of those whose key is away; never changed
}

// home is where a member was last known to be.
type home struct {
	host, proxy string
	ask         netip.AddrPort // PostgreSQL itself
	route       netip.AddrPort // where poolers reach it
	api         string
	err         error // why an address is not known
}

// problem is why there is no address.
func (h home) problem() string {
	if h.err != nil {
		return h.err.Error()
	}
	return "its member key was not seen with one"
}

// sightings adds the addresses to what the store says. It runs in the goroutine of the store's watch, so that a slow
// Resolve delays news of the store alone.
func (s *Source) sightings(ctx context.Context) iter.Seq2[sighting, error] {
	return func(yield func(sighting, error) bool) {
		var homes map[string]home
		for c, err := range Watch(ctx, s.Store, s.Path) {
			next := make(map[string]home, len(c.Members))
			maps.Copy(next, homes) // a key that is away for a moment takes nothing with it
			for _, m := range c.Members {
				if m.Host != "" {
					next[m.Name] = s.locate(ctx, m, homes[m.Name])
				}
			}
			homes = next
			if !yield(sighting{c, homes}, err) {
				return
			}
		}
	}
}

func (s *Source) locate(ctx context.Context, m Member, old home) home {
	h := home{host: m.Host, proxy: m.Proxy, api: m.API}
	if h.ask, h.err = s.resolve(ctx, m.Host); h.err != nil && old.host == m.Host {
		h.ask = old.ask
	}
	h.route = h.ask
	if m.Proxy != "" {
		var err error
		if h.route, err = s.resolve(ctx, m.Proxy); err != nil {
			h.err = err
			if old.proxy == m.Proxy {
				h.route = old.route
			}
		}
	}
	if h.api == "" {
		h.api = old.api
	}
	return h
}

func (s *Source) resolve(ctx context.Context, hostport string) (netip.AddrPort, error) {
	if a, ok := literal(hostport); ok {
		return a, nil
	}
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if s.Resolve == nil {
		return netip.AddrPort{}, fmt.Errorf("%s is not a literal address", hostport)
	}
	ip, err := s.Resolve(ctx, host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.ParseAddrPort(net.JoinHostPort(ip.String(), port))
}

package topology

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/pgconvoy/pgconvoy/envoyconf"
	"github.com/pgconvoy/pgconvoy/internal/mutant"
	"github.com/pgconvoy/pgconvoy/internal/record"
)

// assigned is what a roster makes of one service.
type assigned struct {
	endpoints []envoyconf.Endpoint // sorted, each address once
	draining  []string             // the poolers whose endpoint gets no new clients because an operator drains it, sorted
}

// fitness says how much a pooler is to be given clients; less is better.
type fitness int

const (
	serving  fitness = iota
	refusing         // its agent has no proven target for it: clients are refused at once
	leaving          // an operator drains it, whatever else it is
)

func fitnessOf(f record.Fleet, p record.Pooler) fitness {
	switch {
	case f.Draining:
		return leaving
	case p.State == string(Failed):
		return refusing
	}
	return serving
}

// assign makes each service's endpoints from the roster. A pooler gets no new clients as long as another of its service
// is fitter; where none is, clients may as well try.
func assign(fleet map[string]record.Fleet, poolers map[string]record.Pooler) map[string]assigned {
	best := map[string]fitness{}
	for name, f := range fleet {
		fit := fitnessOf(f, poolers[name])
		if b, ok := best[f.Service]; !ok || fit < b {
			best[f.Service] = fit
		}
	}
	out := map[string]assigned{}
	for name, f := range fleet {
		if _, live := poolers[name]; !live && mutant.Is("law9-expiry-removes") {
			continue
		}
		e := envoyconf.Endpoint{Addr: plain(f.Address)}
		if fit := fitnessOf(f, poolers[name]); fit > best[f.Service] {
			e.Health = map[fitness]envoyconf.Health{refusing: envoyconf.Unhealthy, leaving: envoyconf.Draining}[fit]
		}
		a := out[f.Service]
		a.endpoints = append(a.endpoints, e)
		out[f.Service] = a
	}
	for service, a := range out {
		slices.SortFunc(a.endpoints, func(a, b envoyconf.Endpoint) int {
			return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Health, b.Health))
		})
		// A pooler that was renamed has two entries until the old one is removed: one endpoint, of the better health.
		a.endpoints = slices.CompactFunc(a.endpoints, func(a, b envoyconf.Endpoint) bool { return a.Addr == b.Addr })
		for name, f := range fleet {
			drained := envoyconf.Endpoint{Addr: plain(f.Address), Health: envoyconf.Draining}
			if f.Service == service && f.Draining && slices.Contains(a.endpoints, drained) {
				a.draining = append(a.draining, name)
			}
		}
		slices.Sort(a.draining)
		out[service] = a
	}
	return out
}

// plain is the address as balancers know it: an IPv4 one is never in IPv6 form.
func plain(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

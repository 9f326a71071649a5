package patroni

import (
	"cmp"
	"context"
	"slices"
)

// followStandbys starts and ends a probe for each replica that may serve reads.
func (w *sourceWatch) followStandbys(ctx context.Context) {
	for _, m := range w.Members {
		addr, pr := w.homes[m.Name].ask, w.standbys[m.Name]
		serves := w.Prober != nil && m.Name != w.Leader && !m.Tag("noloadbalance") && addr.IsValid()
		if pr != nil && (!serves || pr.addr != addr) {
			pr.stop()
			delete(w.standbys, m.Name)
			pr = nil
		}
		if serves && pr == nil {
			w.standbys[m.Name] = w.probe(ctx, addr)
		}
	}
}

// dropAway ends the probes of members whose key is away. It may be so for a moment only (a restarted session): what
// answers goes on serving.
func (w *sourceWatch) dropAway() {
	for name, pr := range w.standbys {
		if _, ok := w.Member(name); ok {
			continue
		}
		if a := pr.newest.Load(); name == w.Leader || a == nil || a.Err != nil {
			pr.stop()
			delete(w.standbys, name)
		}
	}
}

// replicas is the present level of all of them, sorted by name.
func (w *sourceWatch) replicas() []Replica {
	var out []Replica
	for name, pr := range w.standbys {
		var p Proof
		if a := pr.newest.Load(); a != nil {
			p = a.Proof
		}
		addr := w.homes[name].route
		fresh := p.Err == nil && !p.At.IsZero() && !p.Writable && p.Timeline != 0 && addr.IsValid() &&
			p.Timeline == w.epoch.Timeline && p.SystemID == w.epoch.SystemID
		inTime, lag := w.inTime(pr, p)
		out = append(out, Replica{Member: name, Addr: addr, Proof: p, Fresh: fresh && inTime, Lag: lag})
	}
	slices.SortFunc(out, func(a, b Replica) int { return cmp.Compare(a.Member, b.Member) })
	return out
}

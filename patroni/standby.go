package patroni

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
)

// standby is one replica that a sourceWatch looks at.
type standby struct {
	addr  netip.AddrPort // where it is asked
	route netip.AddrPort // where poolers reach it
	stop  context.CancelFunc
	proof Proof
}

type standbyProof struct {
	name  string
	addr  netip.AddrPort
	proof Proof
}

// followStandbys starts and ends a probe for each replica that may serve reads.
func (w *sourceWatch) followStandbys(ctx context.Context) {
	wanted := map[string]bool{}
	for _, m := range w.cluster.Members {
		addr := w.resolve(ctx, m.Host)
		if m.Name == w.cluster.Leader || m.Tag("noloadbalance") || !addr.IsValid() || w.Prober == nil {
			continue
		}
		wanted[m.Name] = true
		if s := w.standbys[m.Name]; s != nil {
			if s.addr == addr {
				continue
			}
			s.stop()
		}
		route := addr
		if proxy, ok := literal(m.Proxy); ok {
			route = proxy
		}
		pctx, stop := context.WithCancel(ctx)
		w.standbys[m.Name] = &standby{addr: addr, route: route, stop: stop}
		w.running.Go(func() {
			for p := range w.Prober.Probe(pctx, addr) {
				select {
				case w.standbyProofs <- standbyProof{m.Name, addr, p}:
				case <-pctx.Done():
					return
				}
			}
		})
	}
	for name, s := range w.standbys {
		// A member's key may be away for a moment (a restarted session); what answers and streams goes on serving.
		if !wanted[name] && (name == w.cluster.Leader || s.proof.Err != nil) {
			s.stop()
			delete(w.standbys, name)
		}
	}
}

// replicas is the present level of all of them, sorted by name.
func (w *sourceWatch) replicas() []Replica {
	var out []Replica
	for name, s := range w.standbys {
		p := s.proof
		fresh := p.Err == nil && !p.At.IsZero() && !p.Writable && p.Timeline != 0 &&
			p.Timeline == w.epoch.Timeline && p.SystemID == w.epoch.SystemID
		out = append(out, Replica{Member: name, Addr: s.route, Proof: p, Fresh: fresh})
	}
	slices.SortFunc(out, func(a, b Replica) int { return cmp.Compare(a.Member, b.Member) })
	return out
}

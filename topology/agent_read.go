package topology

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/pooler"
)

// actRead sends a read pooler to the fresh replicas. With none it goes to the proven primary, and with nothing proven
// it stays where it is; only a pause that was found at start ends at its deadline. The mark that the pooler keeps is
// never behind the epoch of the agent: what it has forgotten after a restart, it would follow again.
func (r *agentRun) actRead(ctx context.Context) {
	hosts, reason := r.readHosts()
	if len(hosts) == 0 {
		if r.state == Held && expired(&r.situation) && r.push(ctx, pooler.Target{Mark: r.epoch.String()}) {
			r.deadline = time.Time{}
			r.enter(Failed, "the deadline has passed")
		}
		return
	}
	to := pooler.Target{Hosts: hosts, Mark: r.lead.Epoch.String()}
	if r.state == Routed && slices.Equal(hosts, r.route.Hosts) {
		if to.Mark == r.route.Mark || r.push(ctx, to) {
			r.epoch = r.lead.Epoch
		}
		return
	}
	if slices.ContainsFunc(r.route.Hosts, func(h netip.AddrPort) bool { return !slices.Contains(hosts, h) }) {
		// A server leaves the list: give what reads from it a moment to finish. Route ends what does not.
		hctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		_ = r.Pooler.Hold(hctx) // the best effort is enough
		cancel()
	}
	if r.push(ctx, to) {
		r.epoch, r.deadline = r.lead.Epoch, time.Time{}
		r.enter(Routed, reason)
	}
}

// readHosts is where a read pooler belongs, and why; none: nothing better is known than where it is.
func (r *agentRun) readHosts() (hosts []netip.AddrPort, reason string) {
	o := r.lead.Epoch.Compare(r.epoch, true)
	if r.lead.Epoch.IsZero() || o != patroni.Same && o != patroni.Newer && !r.accepts(o) {
		return nil, ""
	}
	for _, rep := range r.lead.Replicas {
		if r.state == Routed && rep.Proof.At.IsZero() && slices.Contains(r.route.Hosts, rep.Addr) {
			return nil, "" // it serves, and was not asked yet
		}
		if rep.Fresh {
			hosts = append(hosts, rep.Addr)
		}
	}
	if len(hosts) > 0 {
		return hosts, "fresh replicas"
	}
	if !r.proven() {
		return nil, ""
	}
	return []netip.AddrPort{r.lead.Addr}, "no fresh replica: the primary"
}

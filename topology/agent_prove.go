package topology

import (
	"context"
	"net/netip"
	"time"

	"github.com/pgconvoy/pgconvoy/patroni"
)

// stuck: nothing but the age of the proof keeps the pooler from its primary.
func (r *agentRun) stuck() bool {
	s := &r.situation
	return (s.state == Held || s.state == Failed) && !asked(s) && !ahead(s) && s.proven() && s.order() == patroni.Same &&
		!s.lead.At.After(s.doubt) && s.now.After(s.doubt)
}

// proveAnew asks for a proof that begins now, where the one that we have began before the doubt.
func (r *agentRun) proveAnew(ctx context.Context) {
	if r.freshing || !r.stuck() {
		return
	}
	r.freshing = true
	r.running.Go(func() {
		fctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		var found patroni.Leadership
		for l, err := range r.leaders(patroni.Source{}).Watch(fctx) {
			if err != nil {
				break
			}
			if l.Phase == patroni.Writable {
				found = l
				break
			}
		}
		if found.Phase != patroni.Writable { // not at once again, whatever the reason
			select {
			case <-time.After(200 * time.Millisecond):
			case <-ctx.Done():
			}
		}
		select {
		case r.fresh <- found:
		case <-ctx.Done():
		}
	})
}

// homeAnswer is what the old primary said.
type homeAnswer struct {
	addr netip.AddrPort
	patroni.Proof
}

// askHome asks the old primary once a second, where another one is proven that looks like one of a rebuilt store: if the
// old one follows it, nothing is left to go back from.
func (r *agentRun) askHome(ctx context.Context) {
	s := &r.situation
	waits := (s.state == Held || s.state == Failed) && s.proven() && s.order() == patroni.Rebuilt
	if !waits || r.Prober == nil || !s.home.IsValid() || r.homing || s.now.Before(r.homeAt) {
		return
	}
	r.homing, r.homeAt = true, s.now.Add(look)
	home := s.home
	r.running.Go(func() {
		pctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		a := homeAnswer{addr: home, Proof: patroni.Proof{Err: context.DeadlineExceeded}}
		for a.Proof = range r.Prober.Probe(pctx, home) {
			break
		}
		select {
		case r.answers <- a:
		case <-ctx.Done():
		}
	})
}

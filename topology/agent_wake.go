package topology

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/mutant"
	"github.com/pgconvoy/pgconvoy/patroni"
)

// wake makes the Patroni of the lost primary act now. The live agent with the lowest name does it at once, the others
// only when it seems that nobody did.
func (r *agentRun) wake(ctx context.Context) {
	s := &r.situation
	needed := s.state == Held && !r.asking && !s.proven() && !s.lead.Paused && s.lead.API != "" &&
		s.lead.Stale == nil && s.lead.Proof.Err != nil
	if !needed {
		r.stopWake()
		return
	}
	if r.waking != nil || r.nowake.Load() || r.Patroni == nil {
		return
	}
	wctx, cancel := context.WithCancel(ctx)
	r.waking = cancel
	first := 0 * time.Second
	for name := range r.peers {
		if name < r.Name {
			first = 300*time.Millisecond + rand.N(200*time.Millisecond)
		}
	}
	api := s.lead.API
	r.running.Go(func() { r.wakeUntil(wctx, api, first) })
}

// wakeUntil wakes each 250 ms until ctx ends. Refusals end it for good.
func (r *agentRun) wakeUntil(ctx context.Context, api string, first time.Duration) {
	for pause := first; ; pause = 250 * time.Millisecond {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		cctx, cancel := context.WithTimeout(ctx, time.Second)
		err := r.Patroni.Wake(cctx, api)
		if mutant.Is("law10-wake-goes-by-rest") {
			_, err = r.Store.Put(cctx, r.Path+"/config", nil, dcs.Version{})
		}
		cancel()
		var refused *patroni.Error
		if errors.As(err, &refused) && (refused.Status == http.StatusUnauthorized || refused.Status == http.StatusForbidden) {
			r.log.WarnContext(ctx, "Patroni refuses to be woken; a crash will be noticed at its next loop", "error", err)
			r.nowake.Store(true)
			return
		}
	}
}

func (r *agentRun) stopWake() {
	if r.waking != nil {
		r.waking()
		r.waking = nil
	}
}

package patroni

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"time"
)

// probe follows one server. A newer answer replaces an older one that nobody has looked at, but not the fact that the
// server was lost in between: answers with different breaks are not about one unbroken stretch.
type probe struct {
	addr   netip.AddrPort
	stop   context.CancelFunc
	newest atomic.Pointer[answer] // nil: none yet
	late   bool                   // a replica's: it lags, and has not caught up since; for the watch's own goroutine
}

type answer struct {
	Proof
	breaks int // how often something that was true had ceased to be
}

// errEnded says that a Prober broke its contract.
var errEnded = errors.New("patroni: the prober ended by itself")

// probe asks a server until ctx ends or stop is called.
func (w *sourceWatch) probe(ctx context.Context, addr netip.AddrPort) *probe {
	ctx, stop := context.WithCancel(ctx)
	pr := &probe{addr: addr, stop: stop}
	var last answer
	tell := func(p Proof) {
		next := answer{Proof: p, breaks: last.breaks}
		if broken(last.Proof, p) {
			next.breaks++
		}
		last = next
		pr.newest.Store(&next)
		select {
		case w.wake <- struct{}{}:
		default: // it is to look already
		}
	}
	w.running.Go(func() {
		defer stop()
		for p := range w.Prober.Probe(ctx, addr) {
			if ctx.Err() != nil {
				return
			}
			tell(p)
		}
		if ctx.Err() == nil {
			tell(Proof{At: time.Now(), Err: errEnded})
		}
	})
	return pr
}

// broken reports whether something that the old answer said is not so any more. Ever new errors are one loss, and a
// server that ends its recovery is none.
func broken(old, p Proof) bool {
	switch {
	case old.At.IsZero() || old.Err != nil:
		return false
	case p.Err != nil:
		return true
	}
	return old.Writable && !agree(old, p)
}

// agree reports whether two answers say the same.
func agree(a, b Proof) bool {
	return a.Writable == b.Writable && a.Timeline == b.Timeline && a.SystemID == b.SystemID
}

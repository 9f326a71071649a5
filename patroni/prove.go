package patroni

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/mutant"
)

// attempt is one try to prove that a holder of the leader key is a writable primary. It began after the last doubt
// and ends with the next one.
type attempt struct {
	tenure  tenure
	addr    netip.AddrPort
	answers chan Proof // the newest of the standing probe
	stop    context.CancelFunc
}

// report is what an attempt has found. Without a writable proof it says why there is none yet.
type report struct {
	by    *attempt
	began time.Time // when the first read began
	proof Proof
	why   string
}

// reading is one linearizable read that showed the tenure in question.
type reading struct {
	began, answered time.Time
	systemID        string
}

const (
	readBound  = 2 * time.Second        // for one read of the store
	readPause  = 200 * time.Millisecond // after one that failed
	movedPause = 10 * time.Millisecond  // after one that saw what the watch is about to bring
)

var errMoved = errors.New("the leader key was read with another holder or acquisition")

func (w *sourceWatch) begin(ctx context.Context, t tenure, addr netip.AddrPort) *attempt {
	ctx, stop := context.WithCancel(ctx)
	a := &attempt{tenure: t, addr: addr, answers: make(chan Proof, 1), stop: stop}
	w.running.Go(func() {
		defer stop()
		tell := func(r report) {
			r.by = a
			select {
			case w.reports <- r:
			case <-ctx.Done():
			}
		}
		a.prove(ctx, w.Source, tell)
	})
	return a
}

// offer hands over the newest answer. There is one sender.
func (a *attempt) offer(p Proof) {
	select {
	case <-a.answers:
	default:
	}
	a.answers <- p
}

// prove tells why there is no proof, until it tells one.
func (a *attempt) prove(ctx context.Context, s *Source, tell func(report)) {
	var first reading
	var p Proof
	for ctx.Err() == nil {
		next, err := a.read(ctx, s)
		if err == nil {
			select {
			case p = <-a.answers:
			default:
			}
			if !counts(p, first) { // else the older read serves: its answer is here
				first = next
			}
			var ok bool
			if p, ok = a.await(ctx, s.Prober, first, p); !ok {
				continue // the read becomes old: renew it
			}
			second := first
			if !mutant.Is("law2-no-second-read") {
				second, err = a.read(ctx, s)
			}
			if err == nil {
				err = identify(p, second)
			}
		}
		if err == nil {
			tell(report{began: first.began, proof: p})
			return
		}
		first = reading{}
		if ctx.Err() != nil {
			return
		}
		tell(report{why: err.Error()})
		pause := readPause
		if errors.Is(err, errMoved) {
			pause = movedPause
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// counts reports whether an answer follows a read.
func counts(p Proof, first reading) bool {
	return p.Writable && p.Err == nil && !first.answered.IsZero() &&
		(p.At.After(first.answered) || mutant.Is("law2-no-first-read"))
}

// read reads the leader key. An error says why the tenure is not confirmed.
func (a *attempt) read(ctx context.Context, s *Source) (reading, error) {
	ctx, cancel := context.WithTimeout(ctx, readBound)
	defer cancel()
	r := reading{began: time.Now()}
	c, err := Get(ctx, s.Store, s.Path)
	r.answered, r.systemID = time.Now(), c.SystemID
	if err != nil {
		return r, fmt.Errorf("the leader key could not be read: %w", err)
	}
	if tenureOf(c) != a.tenure {
		return r, errMoved
	}
	return r, nil
}

// await waits for an answer that counts, as long as the first read is fresh. It returns the newest answer in any case.
func (a *attempt) await(ctx context.Context, prober Prober, first reading, p Proof) (Proof, bool) {
	ctx, cancel := context.WithTimeout(ctx, repeat)
	defer cancel()
	asked := false
	for !counts(p, first) {
		if p.Writable && !asked {
			// A server that serves is asked rarely, and was asked before the read: do not wait for its turn.
			asked = true
			for own := range prober.Probe(ctx, a.addr) {
				if counts(own, first) {
					return own, true
				}
				break
			}
		}
		select {
		case p = <-a.answers:
		case <-ctx.Done():
			return p, false
		}
	}
	return p, true
}

// identify refuses an answer that is not from the cluster's database, or does not say from which.
func identify(p Proof, r reading) error {
	switch {
	case p.SystemID == "" || p.Timeline == 0:
		return errors.New("its answer is without a system identifier or a timeline")
	case r.systemID != "" && r.systemID != p.SystemID:
		return fmt.Errorf("it is database %s and the cluster is %s", p.SystemID, r.systemID)
	}
	return nil
}

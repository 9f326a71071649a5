package dcstest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// A holder that is cut off knows of its loss before anybody sees its key gone. Another client's lease lives on all that
// time, longer than a TTL: its key, which nobody writes again, is in every element as it was.
func leaseIsLostUnderACut(f *fixture) {
	other := f.another()
	keeper := f.lease(other, "leader", "n1")
	h := f.lease(f, "k", "1")
	v := f.follow(other)
	v.until("complete", f.is("k=1", "leader=n1"))
	f.apply(f.Cut)
	n := 0
	var beat dcs.Version
	v.until("without the key", func(s dcs.Snapshot) bool {
		if e, ok := s.Get(keeper.key); !ok || e.Version != keeper.held || string(e.Value) != "n1" {
			f.Fatalf("the leader key is %v %q, %v; want %v", e.Version, e.Value, ok, keeper.held)
		}
		if gone(h.key)(s) {
			h.toldBefore("the key was gone")
			return true
		}
		if e, _ := s.Get(f.key("beat")); e.Version == beat {
			n++
			beat = f.put(other, "beat", "", beat)
			sleep(f.ctx, 20*time.Millisecond)
		}
		return false
	})
	f.Logf("%d other changes meanwhile", n)
	h.lost()
	keeper.kept()
	if err := h.end(); !errors.Is(err, dcs.ErrLeaseLost) {
		f.Errorf("lease returned %v", err)
	}
	if err := keeper.end(); err != nil {
		f.Errorf("lease returned %v", err)
	}
	v.until("without the leader", gone(keeper.key))
}

// Answers to renewals that do not come are no renewals, also where the servers have renewed.
func leaseIsLostUnderSilence(f *fixture) {
	h := f.lease(f, "k", "1")
	v := f.follow(f.another())
	v.until("complete", f.is("k=1"))
	heal := f.apply(f.Mute)
	v.until("without the key", func(s dcs.Snapshot) bool {
		if !gone(h.key)(s) {
			return false
		}
		h.toldBefore("the key was gone")
		return true
	})
	h.lost()
	if err := h.end(); !errors.Is(err, dcs.ErrLeaseLost) {
		f.Errorf("lease returned %v", err)
	}
	heal()
	f.eventually("a lease after the loss", func() error {
		return f.Lease(f.ctx, func(context.Context, dcs.Writer) error { return nil })
	})
}

// A lease survives a connection that is lost and had again in time.
func leaseSurvivesABrokenConnection(f *fixture) {
	h := f.lease(f, "k", "1")
	v := f.follow(f.another())
	v.until("complete", f.is("k=1"))
	for range 3 {
		f.apply(f.Cut)()
		f.reachable()
		h.kept()
	}
	h.rewrite("2")
	v.until("following", f.is("k=2"))
	h.kept()
	if err := h.end(); err != nil {
		f.Errorf("lease returned %v", err)
	}
	v.until("without the key", f.is())
}

// When no lease can be had fn is not run, and the error comes within a bound.
func leaseIsRefusedUnderACut(f *fixture) { f.leaseRefused(f.Cut) }

// So it is when no answer comes. What the store may have granted holds nothing.
func leaseIsRefusedUnderSilence(f *fixture) { f.leaseRefused(f.Mute) }

func (f *fixture) leaseRefused(fault func(*testing.T) func()) {
	f.get(f, f.dir) // connected
	heal := f.apply(fault)
	f.fail(
		failing{"lease", "lease", func() error {
			return f.Lease(f.ctx, func(context.Context, dcs.Writer) error {
				f.Error("fn runs without a lease")
				return nil
			})
		}},
		failing{"lock", f.key("lock"), func() error {
			return dcs.Lock(f.ctx, f, f.key("lock"), nil, func(context.Context, dcs.Writer, dcs.Version) error {
				f.Error("fn runs without a lock")
				return nil
			})
		}},
	)
	heal()
	f.eventually("a lease", func() error {
		return f.Lease(f.ctx, func(ctx context.Context, w dcs.Writer) error {
			_, err := w.Put(ctx, f.key("k"), nil, dcs.Version{})
			return err
		})
	})
	f.await()
}

// When the store ends a lease its holder is told, its writer writes nothing any more, its keys are gone, and the next
// holder has a higher token.
func leaseExpires(f *fixture) {
	other := f.another()
	h, err := f.lock(f, "first")
	if err != nil {
		f.Fatal(err)
	}
	f.put(h.w, "too", "1", dcs.Version{})
	v := f.follow(other)
	v.until("complete", f.is("lock=first", "too=1"))
	f.Expire(f.T, h.key)
	v.until("empty", f.is())
	h.lost()
	h.writesNothing()
	second, err := f.lock(other, "second")
	if err != nil {
		f.Fatal(err)
	}
	if second.held.Created <= h.held.Created {
		f.Errorf("token %d after %d", second.held.Created, h.held.Created)
	}
	h.writesNothing()
	if err := h.end(); !errors.Is(err, dcs.ErrLeaseLost) {
		f.Errorf("lock returned %v", err)
	}
	second.kept()
	v.until("the second one's", f.is("lock=second"))
	if err := second.end(); err != nil {
		f.Errorf("lock returned %v", err)
	}
	third, err := f.lock(f, "third") // the client whose lease was ended has another
	if err != nil {
		f.Fatal(err)
	}
	if third.held.Created <= second.held.Created {
		f.Errorf("token %d after %d", third.held.Created, second.held.Created)
	}
}

// A lock is handed over when its holder is cut off: not before the holder knows, and with a higher token.
func lockIsHandedOver(f *fixture) { f.handOver(f.Cut, false) }

// A holder that is stopped and continued finds its lock lost and its late writes refused, also one that was on its way
// when it was stopped.
func holderIsStoppedAndContinued(f *fixture) { f.handOver(f.Halt, true) }

func (f *fixture) handOver(fault func(*testing.T) func(), late bool) {
	other := f.another()
	h, err := f.lock(f, "first")
	if err != nil {
		f.Fatal(err)
	}
	h.held = f.put(h.w, "lock", "first", h.held)
	v := f.follow(other)
	v.until("held", has(h.key, h.held))
	heal := f.apply(fault)
	onItsWay := make(chan error, 1)
	if late {
		go func() {
			_, err := h.w.Put(f.ctx, h.key, []byte("late"), h.held)
			onItsWay <- err
		}()
	}
	var second *holder
	refusals := 0
	for second == nil {
		if second, err = f.lock(other, "second"); err != nil {
			refusal, ok := errors.AsType[*dcs.HeldError](err)
			if !ok && !errors.Is(err, dcs.ErrConflict) { // given back in between
				f.Fatal(err)
			}
			if ok && string(refusal.Holder.Value) != "first" {
				f.Fatalf("held by %q", refusal.Holder.Value)
			}
			refusals++
			sleep(f.ctx, 50*time.Millisecond)
		}
	}
	h.toldBefore("another held the lock")
	f.Logf("after %d refusals", refusals)
	if second.held.Created <= h.held.Created {
		f.Errorf("token %d after %d", second.held.Created, h.held.Created)
	}
	heal()
	if late {
		err := <-onItsWay
		f.Logf("the put that was on its way: %v", err)
		if err == nil {
			f.Error("a put that was on its way when the holder was stopped succeeds after the next one holds the lock")
		}
	}
	f.reachable()
	h.writesNothing()
	if err := h.end(); !errors.Is(err, dcs.ErrLeaseLost) {
		f.Errorf("lock returned %v", err)
	}
	second.kept()
	at := v.last.At
	v.until("confirmed", func(s dcs.Snapshot) bool { return s.At.After(at) && has(second.key, second.held)(s) })
	if err := second.end(); err != nil {
		f.Errorf("lock returned %v", err)
	}
	v.until("empty", f.is())
}

package dcstest

import (
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// revoke ends the lease of a key as a client of the store would.
func (f *fixture) revoke(c client, name, value string, v dcs.Version) error {
	f.Helper()
	return c.Store.(dcs.Revoker).Revoke(f.ctx, f.key(name), []byte(value), v)
}

// A lease that somebody else ends is over at once, with all its keys: its holder is told and writes nothing, and another can
// have the key. Other leases live on.
func revokeEndsTheLease(f *fixture) {
	other := f.another()
	keeper := f.lease(f, "keeper", "1")
	h := f.lease(f, "k", "1")
	f.put(h.w, "also", "1", dcs.Version{})
	v := f.follow(other)
	v.until("complete", f.is("also=1", "k=1", "keeper=1"))
	if err := f.revoke(other, "k", "1", h.held); err != nil {
		f.Fatal(err)
	}
	next := f.lease(other, "k", "2") // nothing of the old lease stands in its way
	if next.held.Created <= h.held.Created {
		f.Errorf("the key is at %v after %v", next.held, h.held)
	}
	h.writesNothing()
	h.lost()
	if err := h.end(); !errors.Is(err, dcs.ErrLeaseLost) {
		f.Errorf("lease returned %v", err)
	}
	v.until("handed over", f.is("k=2", "keeper=1"))
	keeper.kept()
	next.kept()
	if err := next.end(); err != nil {
		f.Errorf("the next lease returned %v", err)
	}
	if err := keeper.end(); err != nil {
		f.Errorf("the other lease returned %v", err)
	}
}

// A claim that is not as it was is nobody's to end.
func revokeNeedsTheClaim(f *fixture) {
	h := f.lease(f, "k", "1")
	old := h.held
	h.rewrite("2")
	for what, claim := range map[string]struct {
		name, value string
		v           dcs.Version
	}{
		"the version before": {"k", "1", old},
		"another value":      {"k", "1", h.held},
		"another creation":   {"k", "2", dcs.Version{Created: h.held.Created + 1, Modified: h.held.Modified}},
		"another change":     {"k", "2", dcs.Version{Created: h.held.Created, Modified: h.held.Modified + 1}},
		"no version":         {"k", "2", dcs.Version{}},
		"an absent key":      {"absent", "2", h.held},
		"nothing at all":     {"absent", "", dcs.Version{}},
	} {
		if err := f.revoke(f.client, claim.name, claim.value, claim.v); !errors.Is(err, dcs.ErrConflict) {
			f.Errorf("%s: %v, want %v", what, err, dcs.ErrConflict)
		}
	}
	h.rewrite("3") // it lives
	h.kept()
	v := f.put(f, "plain", "1", dcs.Version{})
	err := f.revoke(f.client, "plain", "1", v)
	if err == nil || errors.Is(err, dcs.ErrConflict) || errors.Is(err, dcs.ErrUnknown) || !strings.Contains(err.Error(), f.key("plain")) {
		f.Errorf("a key of no lease: %v", err)
	}
	if err := f.revoke(f.client, "..", "", v); !errors.Is(err, dcs.ErrInvalid) {
		f.Errorf("a key that is none: %v", err)
	}
	f.await("k=3", "plain=1")
	if err := h.end(); err != nil {
		f.Errorf("lease returned %v", err)
	}
}

// Whoever takes the key after the end of a lease is not ended by those who were late.
func revokeEndsOnce(f *fixture) {
	h := f.lease(f, "k", "same")
	other := f.another()
	var wg sync.WaitGroup
	for _, c := range []client{f.client, other} {
		wg.Go(func() {
			if err := f.revoke(c, "k", "same", h.held); err != nil && !errors.Is(err, dcs.ErrConflict) {
				f.Errorf("at the same time: %v", err)
			}
		})
	}
	wg.Wait()
	next := f.lease(other, "k", "same")
	if err := f.revoke(f.client, "k", "same", h.held); !errors.Is(err, dcs.ErrConflict) {
		f.Errorf("once more: %v, want %v", err, dcs.ErrConflict)
	}
	next.rewrite("again")
	next.kept()
	if err := next.end(); err != nil {
		f.Errorf("lease returned %v", err)
	}
	h.lost()
	if err := h.end(); !errors.Is(err, dcs.ErrLeaseLost) {
		f.Errorf("the lease that was ended returned %v", err)
	}
}

// Without a way to the store there is no outcome to be wrong about.
func revokeFailsUnderACut(f *fixture) {
	other := f.another()
	h := f.lease(other, "k", "1")
	f.get(f, f.dir) // connected
	heal := f.apply(f.Cut)
	errs := f.fail(failing{"revoke", f.key("k"), func() error { return f.revoke(f.client, "k", "1", h.held) }})
	if err := errs["revoke"]; errors.Is(err, dcs.ErrConflict) {
		f.Errorf("revoke: %v", err)
	}
	heal()
	f.reachable()
	ended, cancel := context.WithCancel(f.ctx)
	cancel()
	err := f.Store.(dcs.Revoker).Revoke(ended, f.key("k"), []byte("1"), h.held)
	if !errors.Is(err, context.Canceled) || errors.Is(err, dcs.ErrUnknown) {
		f.Errorf("under a context that has ended: %v", err)
	}
	if e, _ := f.get(f, f.dir).Get(h.key); e.Version != h.held {
		f.Errorf("the key is at %v, want %v", e.Version, h.held)
	}
	if err := h.end(); err != nil {
		f.Errorf("lease returned %v", err)
	}
}

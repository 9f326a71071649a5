package dcstest

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// A restart within the TTL ends no lease: its keys are there after with the version that they had, its holder is not
// told of a loss, and can still write. Watches follow.
func leaseSurvivesARestart(f *fixture) {
	f.put(f, "plain", "1", dcs.Version{})
	h := f.lease(f, "k", "1")
	v := f.follow(f.another())
	v.until("complete", f.is("k=1", "plain=1"))
	f.Restart(f.T)
	h.kept()
	if s := f.reachable(); !has(h.key, h.held)(s) {
		f.Fatalf("content is %v after a restart", f.list(s))
	}
	h.kept()
	h.rewrite("2")
	v.until("following", f.is("k=2", "plain=1"))
	at := v.last.At
	v.until("confirmed", func(s dcs.Snapshot) bool { return fresh(s) && s.At.After(at) })
	h.kept()
	if err := h.end(); err != nil {
		f.Errorf("lease returned %v", err)
	}
	v.until("without the key", f.is("plain=1"))
}

// When the server that leads is killed what was acknowledged stays, the outcome of every write is as it was told, and
// watches get the final state.
func leaderIsKilled(f *fixture) {
	f.serversFail(f.KillLeader, func(*view) {})
}

// So it is when the majority is lost. Meanwhile nothing can be read, watches keep what they have, and leases are lost.
func quorumIsLost(f *fixture) {
	h := f.lease(f, "leased", "1")
	f.serversFail(f.LoseQuorum, func(v *view) {
		f.want(v.until("stale", stale), "k=0", "kept=1", "leased=1")
		f.fail(f.read())
		h.lost()
		if s := v.newest(); s.Stale == nil {
			f.Errorf("no majority, and yet confirmed at %v", s.At)
		}
	})
	if err := h.end(); !errors.Is(err, dcs.ErrLeaseLost) {
		f.Errorf("lease returned %v", err)
	}
}

// serversFail breaks the servers, has a write and more on the way meanwhile, and awaits that all is as it was told.
func (f *fixture) serversFail(fault func(*testing.T) func(), meanwhile func(*view)) {
	version := f.put(f, "k", "0", dcs.Version{})
	kept := f.put(f, "kept", "1", dcs.Version{})
	v := f.follow(f.another())
	v.until("complete", has(f.key("kept"), kept))
	heal := f.apply(fault)
	// It may succeed where the others have elected another leader.
	begin := time.Now()
	var next dcs.Version
	var err error
	var wg sync.WaitGroup
	wg.Go(func() { next, err = f.Put(f.ctx, f.key("k"), []byte("1"), version) })
	meanwhile(v)
	wg.Wait()
	f.Logf("put while servers are missing: %v (after %v)", err, time.Since(begin).Round(time.Millisecond))
	heal()
	switch now, _ := f.reachable().Get(f.key("k")); {
	case err == nil && now.Version != next:
		f.Errorf("acknowledged at %v, it is %v", next, now.Version)
	case err != nil:
		f.changedNothing("k", err, version)
	}
	f.eventually("put", func() error {
		s, err := f.Get(f.ctx, f.dir)
		if err == nil {
			e, _ := s.Get(f.key("k"))
			version, err = f.Put(f.ctx, f.key("k"), []byte("2"), e.Version)
		}
		return err
	})
	s := v.until("final", has(f.key("k"), version))
	if !has(f.key("kept"), kept)(s) {
		f.Errorf("what nobody wrote is not at %v: %v", kept, f.list(s))
	}
	version = f.put(f, "k", "3", version)
	v.until("following", has(f.key("k"), version))
}

// A watch that was cut off while the store forgot what happened meanwhile gets the present state, and follows.
func historyIsForgotten(f *fixture) {
	other := f.another()
	goes := f.put(f, "goes", "1", dcs.Version{})
	version := f.put(f, "k", "0", dcs.Version{})
	v, beside := f.follow(f), f.follow(other)
	v.until("complete", f.is("goes=1", "k=0"))
	heal := f.apply(f.Cut)
	v.until("stale", stale)
	f.remove(other, "goes", goes)
	for i := range 20 {
		version = f.put(other, "k", fmt.Sprint(i), version)
	}
	f.Forget(f.T)
	version = f.put(other, "k", "last", version)
	beside.until("following, as one that was not cut off", f.is("k=last"))
	heal()
	v.until("final", f.is("k=last"))
	f.put(other, "k", "next", version)
	f.Forget(f.T)
	f.put(other, "k2", "1", dcs.Version{})
	v.until("following", f.is("k=next", "k2=1"))
}

// When the store is replaced by an older copy its versions go back, and watches show what it now says, and follow.
func storeIsRestored(f *fixture) {
	version := f.put(f, "k", "old", dcs.Version{})
	goes := f.put(f, "comes back", "1", dcs.Version{})
	restore := f.Backup(f.T) // may have had to stop the servers
	f.reachable()
	v := f.follow(f)
	v.until("complete", f.is("comes back=1", "k=old"))
	f.remove(f, "comes back", goes)
	next := version
	for range 20 {
		next = f.put(f, "k", "new", next)
	}
	f.put(f, "lost", "1", dcs.Version{})
	v.until("following", f.is("k=new", "lost=1"))
	v.restored.Store(true)
	restore()
	f.want(f.reachable(), "comes back=1", "k=old")
	v.until("as the copy is", f.is("comes back=1", "k=old"))
	v.restored.Store(false)
	f.eventually("put", func() error {
		s, err := f.Get(f.ctx, f.dir)
		if err == nil {
			e, _ := s.Get(f.key("k"))
			_, err = f.Put(f.ctx, f.key("k"), []byte("newer"), e.Version)
		}
		return err
	})
	v.until("following", f.is("comes back=1", "k=newer"))
}

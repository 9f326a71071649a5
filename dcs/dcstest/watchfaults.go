package dcstest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// A path that is cut makes the content stale and keeps it: At stays, and no less is known. What was changed meanwhile is
// there after.
func watchIsCut(f *fixture) { f.watchBroken(f.Cut, true) }

// So does a path that is silent: the requests arrive and no answer comes.
func watchIsMuted(f *fixture) { f.watchBroken(f.Mute, false) }

// So does a client that was stopped, when it is continued.
func watchIsHalted(f *fixture) { f.watchBroken(f.Halt, false) }

// watchBroken breaks the path of a watch. Refused connections confirm nothing; what is only kept back may have been on
// its way.
func (f *fixture) watchBroken(fault func(*testing.T) func(), atOnce bool) {
	other := f.another()
	a := f.put(f, "a", "A", dcs.Version{})
	b := f.put(f, "b", "B", dcs.Version{})
	c := f.put(f, "c", "C", dcs.Version{})
	v := f.follow(f)
	v.until("fresh", f.is("a=A", "b=B", "c=C"))
	heal := f.apply(fault)
	broken := time.Now()
	s := v.until("stale", stale)
	f.want(s, "a=A", "b=B", "c=C")
	f.Logf("stale: %v", s.Stale)
	if atOnce && s.At.After(broken) {
		f.Errorf("confirmed at %v, cut at %v", s.At, broken)
	}
	// An event that never comes: the first key is changed and changed back, the second made again, the third removed.
	a = f.put(other, "a", "A", f.put(other, "a", "B", a))
	f.remove(other, "b", b)
	b = f.put(other, "b", "B", dcs.Version{})
	f.remove(other, "c", c)
	f.put(other, "d", "D", dcs.Version{})
	heal()
	s = v.until("final", f.is("a=A", "b=B", "d=D"))
	if !has(f.key("a"), a)(s) || !has(f.key("b"), b)(s) {
		f.Errorf("the versions are not %v and %v", a, b)
	}
	f.remove(other, "b", b)
	v.until("following", f.is("a=A", "d=D"))
}

// The content is confirmed again and again although nothing changes: At advances, and not while there is no path.
func watchIsReconfirmed(f *fixture) {
	version := f.put(f, "k", "1", dcs.Version{})
	v := f.follow(f)
	at := v.until("fresh", fresh).At
	again := func() {
		f.Helper()
		s := v.until("confirmed again", func(s dcs.Snapshot) bool { return fresh(s) && s.At.After(at) })
		if !has(f.key("k"), version)(s) {
			f.Fatalf("content is %v", f.list(s))
		}
		at = s.At
	}
	again()
	again()
	heal := f.apply(f.Cut)
	cut := time.Now()
	if at = v.until("stale", stale).At; at.After(cut) {
		f.Errorf("confirmed at %v, cut at %v", at, cut)
	}
	heal()
	again()
	again()
}

// A watch that cannot reach the store from the start says that it knows nothing, and why; then it recovers.
func watchBeginsUnderACut(f *fixture) {
	f.put(f.another(), "k", "1", dcs.Version{})
	heal := f.apply(f.Cut)
	v := f.follow(f)
	s := v.until("stale", stale)
	if s.Known() {
		f.Errorf("known without a confirmation: %v", f.list(s))
	}
	f.want(s)
	f.Logf("stale: %v", s.Stale)
	heal()
	v.until("fresh", f.is("k=1"))
}

// A watch whose path is cut again and again gets there all the same.
func watchIsCutAgainAndAgain(f *fixture) {
	other, v := f.another(), f.follow(f)
	var version dcs.Version
	for range 5 {
		heal := f.apply(f.Cut)
		v.until("stale", stale)
		version = f.put(other, "k", "1", version)
		heal()
		v.until("fresh", has(f.key("k"), version))
	}
}

// The end of the context is told also while the store cannot be reached, and the last content with it.
func cutWatchEndsWithItsContext(f *fixture) {
	f.put(f, "k", "1", dcs.Version{})
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(f.ctx)
	defer cancel(nil)
	cut := false
	for s, err := range f.Watch(ctx, f.dir) {
		switch {
		case err != nil:
			if !errors.Is(err, why) {
				f.Errorf("ended with %v", err)
			}
			f.want(s, "k=1")
			return
		case fresh(s) && !cut:
			cut = true
			f.apply(f.Cut)
		case stale(s):
			cancel(why)
		}
	}
	f.Error("the sequence ended without the reason")
}

// Get fails when the store cannot be reached, within a bound, and returns no snapshot that could be taken for an empty
// directory.
func getFailsUnderACut(f *fixture) { f.getBroken(f.Cut) }

// So it is when no answer comes.
func getFailsUnderSilence(f *fixture) { f.getBroken(f.Mute) }

func (f *fixture) getBroken(fault func(*testing.T) func()) {
	f.put(f, "k", "1", dcs.Version{})
	heal := f.apply(fault)
	if err := f.fail(f.read())["get"]; errors.Is(err, dcs.ErrUnknown) || errors.Is(err, dcs.ErrInvalid) {
		f.Errorf("get: %v", err)
	}
	f.want(f.get(f.another(), f.dir), "k=1") // for others all is well
	heal()
	f.await("k=1")
	f.want(f.reachable(), "k=1")
}

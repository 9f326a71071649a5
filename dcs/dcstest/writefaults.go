package dcstest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// Writes that cannot be sent fail within a bound, name their key, and were not applied unless they say that they do not
// know.
func writesFailUnderACut(f *fixture) { f.writesBroken(f.Cut) }

// Writes without an answer have an unknown outcome, unless they were not sent. They are sent once: what is read after
// stays.
func writesFailUnderSilence(f *fixture) { f.writesBroken(f.Mute) }

// A write that is on its way when the client is stopped may arrive when it is continued, and is compared then.
func writesFailUnderAHalt(f *fixture) { f.writesBroken(f.Halt) }

func (f *fixture) writesBroken(fault func(*testing.T) func()) {
	old := map[string]dcs.Version{"new": {}}
	for _, name := range []string{"put", "delete"} {
		old[name] = f.put(f, name, "1", dcs.Version{})
	}
	heal := f.apply(fault)
	outcome := f.fail(
		f.write("new", "2", old["new"]),
		f.write("put", "2", old["put"]),
		failing{"delete", f.key("delete"), func() error { return f.Delete(f.ctx, f.key("delete"), old["delete"]) }},
	)
	for name, err := range outcome {
		f.changedNothing(name, err, old[name])
	}
	heal()
	f.reachable()
	for name, err := range outcome {
		f.changedNothing(name, err, old[name])
	}
	// Whatever was unknown is resolved by reading: from there one write goes on, and stays the last.
	s := f.get(f.another(), f.dir)
	v := f.follow(f)
	for name := range outcome {
		e, _ := s.Get(f.key(name))
		next := f.put(f, name, "3", e.Version)
		v.until("following", has(f.key(name), next))
	}
	at := v.last.At
	s = v.until("confirmed", func(s dcs.Snapshot) bool { return fresh(s) && s.At.After(at) })
	f.want(s, "delete=3", "new=3", "put=3")
}

// Of writes during which the connection is lost each one's outcome is as it was told.
func outcomesAreTrueUnderCuts(f *fixture) { f.outcomes(f.Cut) }

// So it is when their answers are lost. None is sent again, or it would meet itself as a conflict.
func outcomesAreTrueUnderSilence(f *fixture) { f.outcomes(f.Mute) }

func (f *fixture) outcomes(fault func(*testing.T) func()) {
	const faults = 4
	type outcome struct {
		version dcs.Version
		err     error
	}
	results := make(chan []outcome, 1)
	ctx, stop := context.WithCancel(f.ctx)
	defer stop()
	var acknowledged atomic.Int64
	go func() {
		var all []outcome
		for ctx.Err() == nil {
			bounded, cancel := context.WithTimeout(ctx, 250*time.Millisecond)
			var o outcome
			o.version, o.err = f.Put(bounded, f.key(fmt.Sprint("k", len(all))), fmt.Append(nil, len(all)), dcs.Version{})
			all = append(all, o)
			cancel()
			if o.err == nil {
				acknowledged.Add(1)
			}
			sleep(ctx, time.Millisecond) // where a write takes no time the others have a turn, too
		}
		results <- all
	}()
	for range faults {
		sleep(f.ctx, 50*time.Millisecond+rand.N(50*time.Millisecond))
		heal := f.apply(fault)
		sleep(f.ctx, 50*time.Millisecond+rand.N(400*time.Millisecond))
		heal()
	}
	f.eventually("a write", func() error {
		if acknowledged.Load() == 0 {
			return errors.New("none is acknowledged")
		}
		return nil
	})
	stop()
	all := <-results
	s := f.get(f.another(), f.dir)
	var unknown, refused int
	for i, o := range all {
		e, there := s.Get(f.key(fmt.Sprint("k", i)))
		switch {
		case o.err == nil:
			if !there || e.Version != o.version {
				f.Errorf("write %d was acknowledged at %v; it is %v, %v", i, o.version, e.Version, there)
			}
		case errors.Is(o.err, dcs.ErrUnknown):
			unknown++
		case errors.Is(o.err, dcs.ErrConflict):
			f.Errorf("write %d met itself: there %v, %v", i, there, o.err)
		default:
			refused++
			if there {
				f.Errorf("write %d was applied, in spite of %v", i, o.err)
			}
		}
		if there && string(e.Value) != fmt.Sprint(i) {
			f.Errorf("write %d is %q", i, e.Value)
		}
	}
	f.Logf("%d acknowledged, %d unknown, %d refused", acknowledged.Load(), unknown, refused)
}

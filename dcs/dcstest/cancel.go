package dcstest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// A context that ends at any moment ends the call with its cause. The outcome of a write is as it was told, a lease
// leaves no keys, and nothing is left running.
func cancellationAtEveryMoment(f *fixture) {
	rounds := 120
	left := f.leavesNothing()
	why := errors.New("why")
	begin := time.Now()
	for i := range 10 {
		f.put(f, fmt.Sprint("try", i), "", dcs.Version{})
	}
	usual := time.Since(begin) / 10
	var acknowledged, unknown, refused int
	for i := range rounds {
		ctx, cancel := context.WithCancelCause(f.ctx)
		timer := time.AfterFunc(rand.N(2*usual+1), func() { cancel(why) })
		check := func(what string, err error) {
			f.Helper()
			if err != nil && !errors.Is(err, why) {
				f.Errorf("%s: %v", what, err)
			}
		}
		name := fmt.Sprint("k", i)
		switch i % 4 {
		case 0, 1:
			_, err := f.Put(ctx, f.key(name), []byte("1"), dcs.Version{})
			check("put", err)
			e, there := f.get(f, f.dir).Get(f.key(name))
			switch {
			case err == nil:
				acknowledged++
				if !there {
					f.Errorf("%s was acknowledged and is not there", name)
				}
				derr := f.Delete(ctx, f.key(name), e.Version)
				check("delete", derr)
				if _, there = f.get(f, f.dir).Get(f.key(name)); there != (derr != nil) && !errors.Is(derr, dcs.ErrUnknown) {
					f.Errorf("%s was deleted (%v) and is there: %v", name, derr, there)
				}
			case errors.Is(err, dcs.ErrUnknown):
				unknown++
			default:
				refused++
				if there {
					f.Errorf("%s was not applied (%v) and is there", name, err)
				}
			}
		case 2:
			for _, err := range f.Watch(ctx, f.dir) {
				if err == nil {
					_, err = f.Get(ctx, f.dir)
				}
				check("watch and get", err)
			}
		case 3:
			check("lease", f.Lease(ctx, func(ctx context.Context, w dcs.Writer) error {
				_, err := w.Put(ctx, f.key("leased/"+name), []byte("1"), dcs.Version{})
				return err
			}))
		}
		timer.Stop()
		cancel(nil)
	}
	f.Logf("%d puts acknowledged, %d unknown, %d refused; usually %v", acknowledged, unknown, refused, usual)
	for s, err := range f.Watch(f.ctx, f.key("leased")) {
		if err != nil {
			f.Fatalf("%v; leased keys are left: %v", err, f.list(s))
		}
		if f.list(s) == "[]" && fresh(s) {
			break
		}
	}
	left()
}

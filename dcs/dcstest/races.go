package dcstest

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// Of many that write at one version one succeeds.
func putHasOneWinner(f *fixture) {
	v := f.put(f, "k", "0", dcs.Version{})
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			switch _, err := f.Put(f.ctx, f.key("k"), []byte("1"), v); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, dcs.ErrConflict):
				f.Errorf("put: %v", err)
			}
		})
	}
	wg.Wait()
	if n := won.Load(); n != 1 {
		f.Fatalf("%d writers succeeded at one version", n)
	}
}

// Of many that delete at one version one succeeds.
func deleteHasOneWinner(f *fixture) {
	v := f.put(f, "k", "0", dcs.Version{})
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			switch err := f.Delete(f.ctx, f.key("k"), v); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, dcs.ErrConflict):
				f.Errorf("delete: %v", err)
			}
		})
	}
	wg.Wait()
	if n := won.Load(); n != 1 {
		f.Fatalf("%d deletions succeeded at one version", n)
	}
	f.want(f.get(f, f.dir))
}

// Writers that read, add one and write what they read lose nothing, over clients of their own.
func writersLoseNothing(f *fixture) {
	const writers, each = 4, 15
	f.put(f, "k", "0", dcs.Version{})
	var wg sync.WaitGroup
	var conflicts atomic.Int32
	for range writers {
		c := f.another()
		wg.Go(func() {
			for done := 0; done < each; {
				s, err := c.Get(f.ctx, f.dir)
				if err == nil {
					e, _ := s.Get(f.key("k"))
					n := 0
					_, _ = fmt.Sscan(string(e.Value), &n)
					_, err = c.Put(f.ctx, f.key("k"), fmt.Append(nil, n+1), e.Version)
				}
				switch {
				case err == nil:
					done++
				case errors.Is(err, dcs.ErrConflict):
					conflicts.Add(1)
				default:
					f.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	f.Logf("%d conflicts", conflicts.Load())
	f.want(f.get(f, f.dir), fmt.Sprint("k=", writers*each))
}

// Package dcstest is the contract of package dcs as tests, for every back end, also for one of your own. Each case
// proves sentences of [dcs.Reader], [dcs.Writer], [dcs.Store] or [dcs.Lock], and of [dcs.Revoker] where a store has that ability.
//
// A back end's test gives it a client of a real server, and the means to break the way there:
//
//	func TestContract(t *testing.T) {
//		server := startServer(t) // one for all cases
//		dcstest.TestStore(t, func(t *testing.T) (dcs.Store, dcstest.Faults) {
//			proxy := startProxy(t, server.Addr())
//			client, err := mystore.Dial(proxy.Addr())
//			if err != nil {
//				t.Fatal(err)
//			}
//			t.Cleanup(client.Close)
//			return &mystore.Store{Client: client, TTL: 2 * time.Second}, dcstest.Faults{
//				Cut:     func(*testing.T) func() { return proxy.Cut() },
//				Mute:    func(*testing.T) func() { return proxy.HoldAnswers() },
//				Halt:    func(*testing.T) func() { return proxy.HoldAll() },
//				Expire:  func(t *testing.T, key string) { server.EndLeaseOf(t, key) },
//				Restart: func(t *testing.T) { server.Stop(t); server.Start(t) },
//			}
//		})
//	}
//
// Without any fault two cases of three run. A short TTL and a short interval of confirmation make the suite quick: most
// of its time is waiting for these. With -short it makes fewer changes.
//
// The package imports nothing but the standard library and package dcs.
package dcstest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
)

const (
	// within bounds a case: far beyond what a healthy store needs, also one whose leases take 20 seconds to run out.
	within = 2 * time.Minute
	// atOnce is how many cases run side by side: most of them wait most of the time.
	atOnce = 12
)

// testCase is one named case of the suite.
type testCase struct {
	name   string
	run    func(*fixture)
	proves string   // the sentences of the contract: "Reader 4, Writer 5"
	needs  []string // fields of Faults
	alone  bool     // it counts goroutines, or every client suffers from it
	revoke bool     // the store has to be a dcs.Revoker
}

// TestStore runs every case as a subtest of t. open returns a client of the store under test, which t ends, with the
// means to break its path. It is called for each client that a case needs, from several goroutines; all clients see the
// same store. Each case works in a directory of its own below /dcstest and leaves its keys there.
//
// When TestStore returns all cases and their clients have ended.
func TestStore(t *testing.T, open func(t *testing.T) (dcs.Store, Faults)) {
	var faults Faults
	revokes := false
	if !t.Run("Open", func(t *testing.T) {
		var s dcs.Store
		s, faults = open(t)
		_, revokes = s.(dcs.Revoker)
	}) {
		return
	}
	var together, alone []testCase
	for _, c := range cases() {
		switch missing := faults.lacks(c.needs); {
		case len(missing) > 0:
			t.Logf("left out: %s needs %s", c.name, strings.Join(missing, ", "))
		case c.revoke && !revokes:
			t.Logf("left out: %s needs a store that is a dcs.Revoker", c.name)
		case c.alone:
			alone = append(alone, c)
		default:
			together = append(together, c)
		}
	}
	t.Logf("%d cases", len(together)+len(alone))
	// Goroutines and not t.Parallel, which would run as many as there are processors.
	room := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for _, c := range together {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			t.Run(c.name, func(t *testing.T) { c.test(t, open, within) })
		})
	}
	wg.Wait()
	for _, c := range alone {
		t.Run(c.name, func(t *testing.T) { c.test(t, open, within) })
	}
}

func (c testCase) test(t *testing.T, open func(t *testing.T) (dcs.Store, Faults), within time.Duration) {
	// Not a deadline: a call under one has no need of the back end's own bound, which is to be tested.
	ctx, cancel := context.WithCancelCause(t.Context())
	timer := time.AfterFunc(within, func() { cancel(fmt.Errorf("dcstest: not done within %v", within)) })
	t.Cleanup(func() {
		timer.Stop()
		cancel(nil)
	})
	f := &fixture{
		T:    t,
		ctx:  ctx,
		dir:  fmt.Sprintf("/dcstest/%s-%08x", c.name, rand.Uint32()),
		open: open,
	}
	f.client = f.another()
	c.run(f)
}

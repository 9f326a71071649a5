package orders

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const customers = 8

// rush is a crowd of customers, of whom each orders one lamp after the other.
type rush struct {
	placed atomic.Int64
	over   atomic.Bool
	wg     sync.WaitGroup
}

// crowd lets customers in. At the latest they leave when the test ends.
func crowd(t *testing.T, shop *Shop) *rush {
	t.Helper()
	r := &rush{}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(func() {
		cancel()
		r.wg.Wait()
	})
	for customer := range customers {
		r.wg.Go(func() {
			for n := 0; !r.over.Load(); n++ {
				err := shop.Place(ctx, fmt.Sprintf("customer %d, order %d", customer, n), "lamp")
				if ctx.Err() != nil {
					return
				}
				if err != nil {
					t.Errorf("customer %d: %v", customer, err)
					return
				}
				r.placed.Add(1)
			}
		})
	}
	return r
}

// await returns when n more orders are placed.
func (r *rush) await(t *testing.T, n int64) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for want := r.placed.Load() + n; r.placed.Load() < want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("customers wait for their orders")
		}
	}
}

// leave lets everybody finish, and returns how many orders were placed.
func (r *rush) leave() int {
	r.over.Store(true)
	r.wg.Wait()
	return int(r.placed.Load())
}

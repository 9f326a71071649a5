package consumer_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/dcstest"
	"github.com/pgconvoy/pgconvoy/dcs/memory"
)

// counted is a store that counts the writes outside of leases.
type counted struct {
	dcs.Store
	writes *atomic.Int64
}

var _ dcs.Store = counted{}

func (c counted) Put(ctx context.Context, key string, value []byte, prev dcs.Version) (dcs.Version, error) {
	c.writes.Add(1)
	return c.Store.Put(ctx, key, value, prev)
}

// TestStore: it keeps the contract, by the public suite.
func TestStore(t *testing.T) {
	c := counted{memory.New(), new(atomic.Int64)}
	dcstest.TestStore(t, func(*testing.T) (dcs.Store, dcstest.Faults) { return c, dcstest.Faults{} })
	if c.writes.Load() == 0 {
		t.Error("no write went through the wrapper")
	}
}

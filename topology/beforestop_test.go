package topology

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/record"
)

func TestBeforeStop(t *testing.T) {
	for _, c := range []struct {
		name   string
		member string
		change func(f *fleet)
		err    string // part of it; empty: none
		takes  time.Duration
		holds  bool
	}{
		{"the primary", "n1", nil, "", 0, true},
		{"a replica", "n2", nil, "", 0, false},
		{"a standby cluster", "n1", func(f *fleet) { f.put(demo+"/config", []byte(`{"standby_cluster":{"host":"x"}}`)) }, "", 0, false},
		{"the store is down", "n1", func(f *fleet) { f.store.SetDown(errors.New("no quorum")) }, "no quorum", 0, false},
		{"a pooler that does not drain", "n1", func(f *fleet) {
			f.poolers[1].do(func(p *fakePooler) { p.busy = make(chan struct{}) })
		}, "did not hold in time", 2 * time.Second, true},
		{"a pooler without an agent", "n1", func(f *fleet) { f.enlist("pgb-9", "write", 9) }, "", 0, true},
		{"a pooler that refuses clients", "n1", func(f *fleet) {
			f.enlist("pgb-9", "write", 9)
			f.register("pgb-9", Failed)
		}, "", 0, true},
		{"another hook that runs", "n1", func(f *fleet) {
			f.put(record.BeforeStopKey(demo, "n1"), record.Encode(&record.BeforeStop{ID: "other", Limit: limit}))
		}, dcs.ErrConflict.Error(), 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(b *bench) {
				f := newFleet(b)
				if c.change != nil {
					c.change(f)
				}
				began := time.Now()
				err := (&BeforeStop{Path: demo, Store: b.store, Member: c.member}).Run(b.Context())
				if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
					t.Errorf("error %v, want %q", err, c.err)
				}
				if d := time.Since(began); d != c.takes {
					t.Errorf("took %s, want %s", d, c.takes)
				}
				want := Routed
				if c.holds {
					want = Held
				}
				f.all(want)
			})
		})
	}
}

func TestInstall(t *testing.T) {
	inBubble(t, func(b *bench) {
		h := &BeforeStop{Path: demo, Store: b.store, Member: "n1"}
		for range 2 {
			if err := h.Install(b.Context()); err != nil {
				t.Error(err)
			}
		}
		if b.entry(record.HookKey(demo, "n1")).Value == nil {
			t.Error("not installed")
		}
	})
}

package dcs_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/memory"
)

// flaky answers the first read that follows a refusal as it likes.
type flaky struct {
	*memory.Store
	get func() (dcs.Snapshot, error)
}

func (f flaky) Get(context.Context, string) (dcs.Snapshot, error) { return f.get() }

func TestLockWhoseHolderCannotBeRead(t *testing.T) {
	store := memory.New()
	if _, err := store.Put(t.Context(), "/a/lock", nil, dcs.Version{}); err != nil {
		t.Fatal(err)
	}
	why := errors.New("why")
	err := dcs.Lock(t.Context(), flaky{store, func() (dcs.Snapshot, error) { return dcs.Snapshot{}, why }}, "/a/lock", nil, nil)
	if !errors.Is(err, why) || !strings.Contains(err.Error(), "/a/lock") {
		t.Error(err)
	}
	err = dcs.Lock(t.Context(), flaky{store, func() (dcs.Snapshot, error) { return dcs.Snapshot{}, nil }}, "/a/lock", nil, nil)
	if !errors.Is(err, dcs.ErrConflict) {
		t.Errorf("given back in between: %v", err)
	}
	if _, ok := errors.AsType[*dcs.HeldError](err); ok {
		t.Error("a holder without an entry")
	}
}

func TestLockNeedsADirectory(t *testing.T) {
	for _, key := range []string{"/lock", "lock", ""} {
		if err := dcs.Lock(t.Context(), memory.New(), key, nil, nil); !errors.Is(err, dcs.ErrInvalid) {
			t.Errorf("%q: %v", key, err)
		}
	}
}

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

// Whoever does not get the lock learns which one, and from whom.
func TestLockSaysWhichAndWhose(t *testing.T) {
	store := memory.New()
	why := errors.New("why")
	store.SetDown(why)
	err := dcs.Lock(t.Context(), store, "/a/lock", nil, nil)
	if !errors.Is(err, why) || !strings.Contains(err.Error(), "/a/lock: not held") {
		t.Error(err)
	}
	store.SetDown(nil)
	holder := strings.Repeat("somebody\n", 100)
	err = dcs.Lock(t.Context(), store, "/a/lock", []byte(holder), func(ctx context.Context, _ dcs.Writer, _ dcs.Version) error {
		return dcs.Lock(ctx, store, "/a/lock", nil, nil)
	})
	refusal, ok := errors.AsType[*dcs.HeldError](err)
	if !ok || string(refusal.Holder.Value) != holder {
		t.Fatal(err)
	}
	if text := err.Error(); !strings.Contains(text, "/a/lock") || !strings.Contains(text, `"somebody\n`) || len(text) > 300 {
		t.Error(text)
	}
}

// A failure of fn is fn's, not the lock's.
func TestLockReturnsWhatFnReturns(t *testing.T) {
	why := errors.New("why")
	err := dcs.Lock(t.Context(), memory.New(), "/a/lock", nil, func(context.Context, dcs.Writer, dcs.Version) error { return why })
	if err != why { //nolint:errorlint // the very error
		t.Error(err)
	}
}

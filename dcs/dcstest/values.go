package dcstest

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// A dir covers the keys below it and never its siblings; a key that equals dir is not part of it.
func directoryIsNotItsSibling(f *fixture) {
	f.put(f, "a/1", "x", dcs.Version{})
	f.put(f, "a/b/2", "y", dcs.Version{})
	f.put(f, "ab", "z", dcs.Version{})
	f.put(f, "ab2/3", "z", dcs.Version{})
	f.want(f.get(f.key("a")), "a/1=x", "a/b/2=y")
	f.want(f.get(f.key("ab")))
	f.want(f.get(f.dir), "a/1=x", "a/b/2=y", "ab=z", "ab2/3=z")
}

// What was acknowledged before Get began is in the result.
func getSeesWhatWasWritten(f *fixture) {
	var v dcs.Version
	for _, value := range []string{"", "1", strings.Repeat("long", 1000), "\x00\xff binary"} {
		v = f.put(f, "k", value, v)
		e, ok := f.get(f.dir).Get(f.key("k"))
		if !ok || !bytes.Equal(e.Value, []byte(value)) || e.Version != v || e.Key != f.key("k") {
			f.Fatalf("read %q %v, wrote %q %v", e.Value, e.Version, value, v)
		}
	}
}

// Put with the zero version writes only if the key does not exist.
func putCreatesOnce(f *fixture) {
	v := f.put(f, "k", "first", dcs.Version{})
	if v == (dcs.Version{}) {
		f.Fatal("a key that exists has the zero version")
	}
	if _, err := f.Put(f.ctx, f.key("k"), []byte("second"), dcs.Version{}); !errors.Is(err, dcs.ErrConflict) {
		f.Fatalf("second creation: %v", err)
	}
	f.want(f.get(f.dir), "k=first")
}

// Put writes only if the key is at version prev, and returns the version that it wrote.
func putNeedsTheVersion(f *fixture) {
	v1 := f.put(f, "k", "1", dcs.Version{})
	v2 := f.put(f, "k", "2", v1)
	if v2.Modified == v1.Modified || v2.Created != v1.Created {
		f.Fatalf("version went from %v to %v", v1, v2)
	}
	for _, wrong := range []dcs.Version{v1, {Created: v2.Created}, {Modified: v2.Modified}, {Created: v2.Created + 1, Modified: v2.Modified}} {
		if _, err := f.Put(f.ctx, f.key("k"), []byte("3"), wrong); !errors.Is(err, dcs.ErrConflict) {
			f.Fatalf("put at %v, key is at %v: %v", wrong, v2, err)
		}
	}
	if _, err := f.Put(f.ctx, f.key("absent"), []byte("3"), v2); !errors.Is(err, dcs.ErrConflict) {
		f.Fatalf("put to an absent key at %v: %v", v2, err)
	}
	f.want(f.get(f.dir), "k=2")
}

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

// Delete removes only at version prev; an absent key is a conflict.
func deleteNeedsTheVersion(f *fixture) {
	v1 := f.put(f, "k", "1", dcs.Version{})
	v2 := f.put(f, "k", "2", v1)
	for _, wrong := range []dcs.Version{{}, v1} {
		if err := f.Delete(f.ctx, f.key("k"), wrong); !errors.Is(err, dcs.ErrConflict) {
			f.Fatalf("delete at %v, key is at %v: %v", wrong, v2, err)
		}
	}
	if err := f.Delete(f.ctx, f.key("k"), v2); err != nil {
		f.Fatalf("delete: %v", err)
	}
	f.want(f.get(f.dir))
	for _, wrong := range []dcs.Version{{}, v2} {
		if err := f.Delete(f.ctx, f.key("k"), wrong); !errors.Is(err, dcs.ErrConflict) {
			f.Fatalf("delete of an absent key at %v: %v", wrong, err)
		}
	}
}

// Created grows with every re-creation of a key.
func createdGrows(f *fixture) {
	var last dcs.Version
	for range 3 {
		v := f.put(f, "k", "1", dcs.Version{})
		if v.Created <= last.Created {
			f.Fatalf("created again at %v, after %v", v, last)
		}
		last = v
		if err := f.Delete(f.ctx, f.key("k"), v); err != nil {
			f.Fatalf("delete: %v", err)
		}
	}
}

// What no store accepts is refused as ErrInvalid.
func argumentsAreChecked(f *fixture) {
	refused := func(what string, err error) {
		f.Helper()
		if !errors.Is(err, dcs.ErrInvalid) {
			f.Errorf("%s: %v", what, err)
		}
	}
	for _, bad := range []string{"", "a", "/a/", "//a", "/a/../b", "/a\n"} {
		_, err := f.Get(f.ctx, bad)
		refused("get "+bad, err)
		_, err = f.Put(f.ctx, bad, nil, dcs.Version{})
		refused("put "+bad, err)
		refused("delete "+bad, f.Delete(f.ctx, bad, dcs.Version{Created: 1, Modified: 1}))
		n := 0
		for _, err := range f.Watch(f.ctx, bad) {
			refused("watch "+bad, err)
			n++
		}
		if n != 1 {
			f.Errorf("watch %q yielded %d pairs, want the error alone", bad, n)
		}
	}
	_, err := f.Put(f.ctx, f.key("k"), make([]byte, dcs.MaxValue+1), dcs.Version{})
	refused("too large a value", err)
	f.want(f.get(f.dir))
}

// Nothing is sent under a context that has ended, and the error says why it has.
func endedContextChangesNothing(f *fixture) {
	v := f.put(f, "k", "1", dcs.Version{})
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(f.ctx)
	cancel(why)
	check := func(what string, err error) {
		f.Helper()
		if !errors.Is(err, why) || errors.Is(err, dcs.ErrUnknown) {
			f.Errorf("%s: %v", what, err)
		}
	}
	_, err := f.Put(ctx, f.key("k"), []byte("2"), v)
	check("put", err)
	check("delete", f.Delete(ctx, f.key("k"), v))
	check("lease", f.Lease(ctx, func(context.Context, dcs.Writer) error {
		f.Error("fn runs under a context that has ended")
		return nil
	}))
	_, err = f.Get(ctx, f.dir)
	check("get", err)
	f.want(f.get(f.dir), "k=1")
}

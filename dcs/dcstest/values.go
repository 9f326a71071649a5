package dcstest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// A dir covers the keys below it and never its siblings; a key that equals dir is not part of it.
func directoryIsNotItsSibling(f *fixture) {
	f.put(f, "a/1", "x", dcs.Version{})
	f.put(f, "a/b/2", "y", dcs.Version{})
	f.put(f, "ab", "z", dcs.Version{})
	f.put(f, "ab2/3", "z", dcs.Version{})
	f.want(f.get(f, f.key("a")), "a/1=x", "a/b/2=y")
	f.want(f.get(f, f.key("ab")))
	f.want(f.get(f, f.dir), "a/1=x", "a/b/2=y", "ab=z", "ab2/3=z")
}

// A directory with nothing in it is known and empty, also one that had something.
func emptyDirectoryIsKnown(f *fixture) {
	f.want(f.get(f, f.key("a"))) // fails unless it is known
	f.remove(f, "a/1", f.put(f, "a/1", "x", dcs.Version{}))
	f.want(f.get(f, f.key("a")))
	f.want(f.get(f, f.dir))
}

// A key may have others below it, whichever came first.
func keyHasOthersBelow(f *fixture) {
	f.put(f, "a/1", "below", dcs.Version{})
	a := f.put(f, "a", "above", dcs.Version{})
	f.put(f, "b", "above", dcs.Version{})
	f.put(f, "b/1", "below", dcs.Version{})
	f.want(f.get(f, f.dir), "a=above", "a/1=below", "b=above", "b/1=below")
	f.put(f, "a", "again", a)
	f.want(f.get(f, f.key("a")), "a/1=below")
	f.want(f.get(f, f.dir), "a=again", "a/1=below", "b=above", "b/1=below")
}

// What was acknowledged before Get began is in the result.
func getSeesWhatWasWritten(f *fixture) {
	var v dcs.Version
	for _, value := range []string{"", "1", strings.Repeat("long", 1000), "\x00\xff binary"} {
		v = f.put(f, "k", value, v)
		e, ok := f.get(f, f.dir).Get(f.key("k"))
		if !ok || !bytes.Equal(e.Value, []byte(value)) || e.Version != v || e.Key != f.key("k") {
			f.Fatalf("read %q %v, wrote %q %v", e.Value, e.Version, value, v)
		}
	}
}

// What one client was told of as written the other one reads.
func getSeesWhatAnotherWrote(f *fixture) {
	writer, v := f.another(), dcs.Version{}
	for i := range 30 {
		v = f.put(writer, "k", fmt.Sprint(i), v)
		if e, _ := f.get(f, f.dir).Get(f.key("k")); e.Version != v {
			f.Fatalf("read %v %q after %v was acknowledged", e.Version, e.Value, v)
		}
	}
	f.remove(writer, "k", v)
	f.want(f.get(f, f.dir))
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
	f.want(f.get(f, f.dir), "k=first")
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
	f.want(f.get(f, f.dir), "k=2")
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
	f.remove(f, "k", v2)
	f.want(f.get(f, f.dir))
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
		f.remove(f, "k", v)
	}
}

// A version that was read before a deletion is a conflict for ever, also if the key was made again in the same way.
func staleCompareAfterRecreation(f *fixture) {
	v1 := f.put(f, "k", "1", dcs.Version{})
	f.remove(f, "k", v1)
	v2 := f.put(f, "k", "1", dcs.Version{})
	if _, err := f.Put(f.ctx, f.key("k"), []byte("2"), v1); !errors.Is(err, dcs.ErrConflict) {
		f.Errorf("put at %v, key was made again at %v: %v", v1, v2, err)
	}
	if err := f.Delete(f.ctx, f.key("k"), v1); !errors.Is(err, dcs.ErrConflict) {
		f.Errorf("delete at %v, key was made again at %v: %v", v1, v2, err)
	}
	if e, _ := f.get(f, f.dir).Get(f.key("k")); e.Version != v2 || string(e.Value) != "1" {
		f.Errorf("the key is at %v %q, want %v", e.Version, e.Value, v2)
	}
}

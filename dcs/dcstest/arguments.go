package dcstest

import (
	"bytes"
	"context"
	"errors"
	"strings"

	"github.com/pgconvoy/pgconvoy/dcs"
)

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
	if err != nil && !strings.Contains(err.Error(), f.key("k")) {
		f.Errorf("the error does not name the key: %v", err)
	}
	err = f.Lease(f.ctx, func(ctx context.Context, w dcs.Writer) error {
		_, err := w.Put(ctx, f.key("k"), make([]byte, dcs.MaxValue+1), dcs.Version{})
		refused("too large a value for a lease", err)
		_, err = w.Put(ctx, "k", nil, dcs.Version{})
		refused("a leased put of k", err)
		refused("a leased delete of k", w.Delete(ctx, "k", dcs.Version{Created: 1, Modified: 1}))
		return nil
	})
	if err != nil {
		f.Error(err)
	}
	f.want(f.get(f, f.dir))
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
	f.want(f.get(f, f.dir), "k=1")
}

// Keys with characters that mean something to URLs, shells, JSON or file systems are keys like others.
func oddKeysAreKeys(f *fixture) {
	names := []string{
		"with space", " leading", "trailing ", "100%", "%2F", "a+b", "q?x=1", "h#1", "a&b=c", "\"double\"", "it's", "`back`",
		"back\\slash", "..two", "in..side", ".hidden", "dot.", "ünïcödé", "日本語", "~", "colon:semi;", "[1]", "{2}", "(3)", "<4>",
		"|", "^", "*", "$HOME", "@", "!", ",", "=", "-", "_", "K", "k", "a b/c%d/e?f",
		strings.Repeat("long", 128)[:512-len(f.key(""))],
	}
	versions := make(map[string]dcs.Version)
	v := f.follow(f)
	for _, name := range names {
		versions[name] = f.put(f, name, "1"+name, dcs.Version{})
	}
	for _, name := range names {
		versions[name] = f.put(f, name, name, versions[name])
	}
	all := func(s dcs.Snapshot) bool {
		n := 0
		for range s.All(f.dir) {
			n++
		}
		for _, name := range names {
			if e, _ := s.Get(f.key(name)); e.Version != versions[name] || string(e.Value) != name || e.Key != f.key(name) {
				return false
			}
		}
		return fresh(s) && n == len(names)
	}
	if s := f.get(f, f.dir); !all(s) {
		f.Fatalf("read %v", f.list(s))
	}
	v.until("complete", all)
	for _, name := range names {
		f.remove(f, name, versions[name])
	}
	v.until("empty", f.is())
}

// A directory with such a name is one like others, too.
func oddDirectoriesAreDirectories(f *fixture) {
	for _, name := range []string{"with space", "100%", "%2F", "a+b", "q?x=1#2", "日本語"} {
		f.put(f, name+"/k", "1", dcs.Version{})
		f.put(f, name+"k", "no", dcs.Version{})
		f.want(f.get(f, f.key(name)), name+"/k=1")
		for s, err := range f.Watch(f.ctx, f.key(name)) {
			if err != nil {
				f.Fatal(err)
			}
			if fresh(s) {
				f.want(s, name+"/k=1")
				break
			}
		}
	}
}

// Values of any bytes up to the limit come back as they were. A lease's writer may refuse a large one, and says so.
func largeValuesComeBack(f *fixture) {
	var version dcs.Version
	v := f.follow(f)
	for _, size := range []int{500_000, 1, dcs.MaxValue, 0} {
		value := make([]byte, size)
		for i := range value {
			value[i] = byte(i * 31)
		}
		version = f.put(f, "k", string(value), version)
		if e, _ := f.get(f, f.dir).Get(f.key("k")); e.Version != version || !bytes.Equal(e.Value, value) {
			f.Fatalf("read %d bytes at %v, wrote %d at %v", len(e.Value), e.Version, size, version)
		}
		s := v.until("following", has(f.key("k"), version))
		if e, _ := s.Get(f.key("k")); !bytes.Equal(e.Value, value) {
			f.Fatalf("the watch has %d bytes, wrote %d", len(e.Value), size)
		}
	}
	err := f.Lease(f.ctx, func(ctx context.Context, w dcs.Writer) error {
		value := bytes.Repeat([]byte("\xff\""), 250_000)
		version, err := w.Put(ctx, f.key("leased"), value, dcs.Version{})
		e, ok := f.get(f, f.dir).Get(f.key("leased"))
		switch {
		case errors.Is(err, dcs.ErrInvalid):
			f.Logf("refused: %v", err)
			if ok || !strings.Contains(err.Error(), f.key("leased")) {
				f.Errorf("refused and there: %v; %v", ok, err)
			}
		case err != nil:
			return err
		case e.Version != version || !bytes.Equal(e.Value, value):
			f.Errorf("read %d bytes at %v, wrote %d at %v", len(e.Value), e.Version, len(value), version)
		}
		return nil
	})
	if err != nil {
		f.Fatal(err)
	}
	v.until("without it", gone(f.key("leased")))
}

package dcstest

import (
	"bytes"
	"reflect"
	"runtime"
	"strings"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// Watches that were left are gone: neither a goroutine of the back end nor, for each, one of its client remains.
func watchLeavesNothing(f *fixture) {
	const watches = 200
	f.put(f, "k", "1", dcs.Version{})
	f.await("k=1") // whatever a client starts on its first use
	left := f.leavesNothing()
	before := runtime.NumGoroutine()
	seq := f.Watch(f.ctx, f.dir)
	for range watches {
		for s, err := range seq {
			if err != nil {
				f.Fatal(err)
			}
			if fresh(s) {
				f.want(s, "k=1")
				break
			}
		}
	}
	left()
	// A client may keep some of its own, such as those of idle connections, but not one for every watch.
	for pause := time.Millisecond; runtime.NumGoroutine() > before+watches/10; pause = min(2*pause, time.Second) {
		if sleep(f.ctx, pause); f.ctx.Err() != nil {
			f.Fatalf("%d goroutines before, %d after %d watches", before, runtime.NumGoroutine(), watches)
		}
	}
}

// Leases that were had and given back leave nothing either.
func leaseLeavesNothing(f *fixture) {
	left := f.leavesNothing()
	for range 20 {
		h := f.lease(f, "k", "1")
		if err := h.end(); err != nil {
			f.Fatal(err)
		}
	}
	left()
	f.await()
}

// leavesNothing waits, when what it returns is called, until every goroutine that runs the back end's code, or that of
// package dcs for it, and was started after this, has ended.
func (f *fixture) leavesNothing() (check func()) {
	f.Helper()
	of := reflect.TypeOf(f.Store)
	if of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	contract := reflect.TypeFor[dcs.Version]().PkgPath()
	code := []string{of.PkgPath() + ".", contract + ".", contract + "/internal/"}
	before := goroutines()
	return func() {
		f.Helper()
		for pause := time.Millisecond; ; pause = min(2*pause, time.Second) {
			var left []string
			for id, stack := range goroutines() {
				if _, ok := before[id]; !ok && containsAny(stack, code) && !strings.Contains(stack, "testing.tRunner") {
					left = append(left, stack)
				}
			}
			if len(left) == 0 {
				return
			}
			if sleep(f.ctx, pause); f.ctx.Err() != nil {
				f.Fatalf("%d goroutines are left:\n\n%s", len(left), strings.Join(left, "\n\n"))
			}
		}
	}
}

func containsAny(s string, parts []string) bool {
	for _, part := range parts {
		if strings.Contains(s, part) {
			return true
		}
	}
	return false
}

// goroutines returns the stack of each goroutine by its head, "goroutine 7".
func goroutines() map[string]string {
	buf := make([]byte, 1<<20)
	for n := runtime.Stack(buf, true); ; n = runtime.Stack(buf, true) {
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	all := make(map[string]string)
	for stack := range bytes.SplitSeq(buf, []byte("\n\n")) {
		id, _, _ := strings.Cut(string(stack), " [")
		all[id] = string(stack)
	}
	return all
}

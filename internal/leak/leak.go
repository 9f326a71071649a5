// Package leak finds goroutines and processes that outlive a test.
package leak

import (
	"bytes"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// Check fails t, after the clean-up that is registered later, if goroutines that it starts do not end within five
// seconds. With only, it minds those whose stack contains one of these. Not for tests that run in parallel.
func Check(t testing.TB, only ...string) {
	t.Helper()
	before := goroutines()
	t.Cleanup(func() {
		var left []string
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
			left = left[:0]
			for id, stack := range goroutines() {
				if _, ok := before[id]; !ok && !strings.Contains(stack, "testing.(*T)") && minded(stack, only) {
					left = append(left, stack)
				}
			}
			if len(left) == 0 {
				return
			}
			if time.Now().After(deadline) {
				t.Errorf("%d goroutines left:\n\n%s", len(left), strings.Join(left, "\n\n"))
				return
			}
		}
	})
}

func minded(stack string, only []string) bool {
	return len(only) == 0 || slices.ContainsFunc(only, func(part string) bool { return strings.Contains(stack, part) })
}

// goroutines returns the stack of each goroutine by its head, "goroutine 7".
func goroutines() map[string]string {
	buf := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buf, true)
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

// Package level makes the sequence of a watch: the part that all back ends have in common.
package level

import (
	"context"
	"iter"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/mutant"
)

// Watch is a sequence of levels. Each range over it runs run in one goroutine of its own, which ends before the range
// does: run follows a store while the consumer works, and publishes what it finds, so that a slow consumer gets the newest.
// publish never blocks. run goes on until ctx ends or there is no hope, and returns the last content with the reason, never
// nil. Where refused is an error, a bad argument, the sequence is that error alone.
func Watch(
	ctx context.Context, refused error, run func(ctx context.Context, publish func(dcs.Snapshot)) (dcs.Snapshot, error),
) iter.Seq2[dcs.Snapshot, error] {
	return func(yield func(dcs.Snapshot, error) bool) {
		var last dcs.Snapshot
		if refused != nil {
			yield(last, refused)
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		levels, wait := dcs.Latest(func(yield func(dcs.Snapshot, error) bool) {
			yield(run(ctx, func(s dcs.Snapshot) { yield(s, nil) }))
		})
		defer func() {
			if !mutant.Is("law14-watch-is-awaited") {
				_ = wait()
			}
		}()
		defer cancel()
		for last = range levels {
			if !yield(last, nil) {
				return
			}
		}
		yield(last, wait())
	}
}

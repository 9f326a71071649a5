package level_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/internal/level"
)

// What follows the store takes its time to end: leaving the loop waits for it.
func TestLeavingTheLoopWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan struct{})
		seq := level.Watch(t.Context(), nil, func(ctx context.Context, publish func(dcs.Snapshot)) (dcs.Snapshot, error) {
			defer close(ended)
			publish(dcs.NewSnapshot(time.Now(), nil))
			<-ctx.Done()
			time.Sleep(time.Second)
			return dcs.Snapshot{}, context.Cause(ctx)
		})
		for range seq {
			break
		}
		select {
		case <-ended:
		default:
			t.Error("it goes on after the loop")
		}
	})
}

// A refused argument is the whole sequence, and nothing is started.
func TestRefused(t *testing.T) {
	refused := errors.New("refused")
	n := 0
	for s, err := range level.Watch(t.Context(), refused, nil) {
		if n++; s.Known() || !errors.Is(err, refused) {
			t.Errorf("%v, %v", s, err)
		}
	}
	if n != 1 {
		t.Errorf("%d elements", n)
	}
}

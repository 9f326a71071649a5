package dcs_test

import (
	"errors"
	"iter"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
)

func numbers(n int, every time.Duration, final error) iter.Seq2[int, error] {
	return func(yield func(int, error) bool) {
		for i := range n {
			if !yield(i+1, nil) {
				return
			}
			time.Sleep(every)
		}
		if final != nil {
			yield(0, final)
		}
	}
}

func TestLatestIsTheNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		why := errors.New("why")
		c, wait := dcs.Latest(numbers(100, time.Second, why))
		time.Sleep(49500 * time.Millisecond)
		if n := <-c; n != 50 {
			t.Errorf("the newest is %d", n)
		}
		time.Sleep(time.Hour)
		if n := <-c; n != 100 {
			t.Errorf("the last is %d", n)
		}
		if n, open := <-c; open {
			t.Errorf("%d after the end", n)
		}
		if err := wait(); !errors.Is(err, why) {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestLatestOfASequenceThatEnds(t *testing.T) {
	c, wait := dcs.Latest(numbers(0, 0, nil))
	if _, open := <-c; open {
		t.Error("an element from nowhere")
	}
	if err := wait(); err != nil {
		t.Error(err)
	}
}

package record_test

import (
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
)

func TestFences(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	trip(t, &record.Fences{Fences: []record.Fence{{
		At: at, By: "f", Member: "n1", Epoch: patroni.Epoch{SystemID: "7", Timeline: 1, Created: 2},
		Outcome: record.FenceUnconfirmed, Took: time.Second, Error: "e",
	}}})
	var all record.Fences
	for i := range 2 * record.FencesKept {
		f := record.Fence{At: at.Add(time.Duration(i)), By: "f", Outcome: record.FenceBegun}
		all = all.With(f)
		f.Outcome = record.FenceEnded
		before := all
		all = all.With(f)
		if last := before.Fences[len(before.Fences)-1]; last.Outcome != record.FenceBegun {
			t.Fatalf("a value that was given away has changed: %+v", last)
		}
	}
	if n := len(all.Fences); n != record.FencesKept {
		t.Errorf("%d are kept, want %d", n, record.FencesKept)
	}
	for i, f := range all.Fences {
		if f.Outcome != record.FenceEnded || !f.At.Equal(at.Add(time.Duration(record.FencesKept+i))) {
			t.Errorf("attempt %d is %+v", i, f)
		}
	}
	s := snapshot(dcs.Entry{Key: record.FencesKey(path), Value: record.Encode(&all), Version: dcs.Version{Created: 1, Modified: 2}})
	if back, v, err := record.FencesOf(s, path); err != nil || len(back.Fences) != record.FencesKept || v.Modified != 2 {
		t.Errorf("read back: %d, %v, %v", len(back.Fences), v, err)
	}
	if back, v, err := record.FencesOf(snapshot(), path); err != nil || len(back.Fences) != 0 || v != (dcs.Version{}) {
		t.Errorf("out of nothing: %v, %v, %v", back, v, err)
	}
	s = snapshot(dcs.Entry{Key: record.FencesKey(path), Value: []byte(`{"v":9}`)})
	if _, _, err := record.FencesOf(s, path); err == nil {
		t.Error("a record of a newer program is read")
	}
}

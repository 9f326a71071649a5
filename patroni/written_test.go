package patroni

import (
	"testing"
	"time"
)

// However often and for however long a primary is asked, what is remembered of it is bounded.
func TestWrittenIsBounded(t *testing.T) {
	e := Epoch{SystemID: "1", Timeline: 3}
	for _, every := range []time.Duration{time.Microsecond, 3 * time.Millisecond, 250 * time.Millisecond, time.Minute} {
		var h written
		now := time.Now()
		for i := range uint64(100_000) {
			now = now.Add(every)
			h.note(e, Proof{Writable: true, SystemID: "1", Timeline: 3, LSN: i + 1, At: now}, defaultLag)
			if len(h.marks) > marksKept+3 {
				t.Fatalf("asked each %v: %d marks after %d answers", every, len(h.marks), i+1)
			}
		}
		if n := cap(h.marks); n > 4*marksKept {
			t.Errorf("asked each %v: room for %d marks", every, n)
		}
		if h.reached(0) || !h.reached(100_000) || h.behind(100_000) != 0 {
			t.Errorf("asked each %v: %v", every, h.marks)
		}
	}
}

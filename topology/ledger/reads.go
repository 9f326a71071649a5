package ledger

import "time"

// Reads is what became of the reads of a run, or of a part of it. A read that
// is answered shows the newest row of one writer, and whether the server is a
// standby.
//
// Of a primary everything is demanded: that it shows every row that was
// acknowledged before the read was started, and that it is of no older
// timeline than the last. (A row of an older timeline that it does not have is
// not its fault: that one is Lost.) Of a standby nothing can be demanded: it may
// lag as long as it likes, and a service of several may answer from another one
// each time. Its answers are measured, in Behind and Lag, and not judged.
type Reads struct {
	Readers int `json:"readers"`

	// Sent counts the reads that were started, Answered and Failed what became
	// of them. A read has no unknown outcome: it changes nothing.
	Sent     int `json:"sent"`
	Answered int `json:"answered"`
	Failed   int `json:"failed"`

	// Back counts the answers of a primary of an older timeline than that of
	// a primary that had answered the same reader before.
	Back int `json:"back"`
	// Stale counts the answers of a primary that was none any more: it did not
	// show a row that had been acknowledged, on its timeline or a newer one,
	// before the read was started, or some client had by then been answered by
	// the primary of a newer timeline.
	Stale int `json:"stale"`
	// Behind counts the answers of a standby that did not show a row that had
	// been acknowledged before the read was started.
	Behind int `json:"behind"`
	// Lag is the longest time that such a row had been acknowledged when the
	// read was started, with a resolution of Load.Every.
	Lag time.Duration `json:"lag"`

	// The same as for the writers.
	Stall      time.Duration  `json:"stall"`
	Silence    time.Duration  `json:"silence"`
	P50        time.Duration  `json:"p50"`
	P99        time.Duration  `json:"p99"`
	BySQLState map[string]int `json:"by_sqlstate,omitempty"`
	FirstError string         `json:"first_error,omitempty"`
}

// reads fills in what the readers saw in the part [from, to).
func (h *history) reads(from, to time.Duration) Reads {
	t := h.tally(h.readers, from, to)
	p := Reads{
		Readers: len(h.readers), Sent: t.sent, Answered: t.answered, Failed: t.sent - t.answered,
		Stall: t.stall, Silence: t.silence, P50: t.p50, P99: t.p99, BySQLState: t.kinds, FirstError: t.firstError,
	}
	for reader := range h.readers {
		t := &h.readers[reader]
		begin, end := t.part(from, to)
		var newest uint32
		for seq, a := range t.attempts[:end] {
			if a.outcome != acknowledged {
				continue
			}
			standby := t.views[seq].standby
			if seq >= begin {
				if behind := h.behind(reader, seq); standby && behind > 0 {
					p.Behind++
					p.Lag = max(p.Lag, behind)
				}
				if h.staleRead(reader, seq) {
					p.Stale++
				}
				if !standby && a.timeline < newest {
					p.Back++
				}
			}
			if !standby {
				newest = max(newest, a.timeline)
			}
		}
	}
	return p
}

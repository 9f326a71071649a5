package ledger

import (
	"iter"
	"time"
)

// Outcome is what a client knows about one of its transactions.
type Outcome string

const (
	// Acknowledged means that the server said that it committed, or answered
	// the read.
	Acknowledged Outcome = "acknowledged"
	// Failed means that it surely did not commit.
	Failed Outcome = "failed"
	// Unknown means that it was sent, and no answer settles whether it
	// committed. A read is never unknown.
	Unknown Outcome = "unknown"
)

// Attempt is the record of one transaction.
type Attempt struct {
	// Client and Seq name it: writers and readers are each counted from 0, and
	// so are the transactions of each. Those of a writer are the columns writer
	// and seq of its row.
	Client int  `json:"client"`
	Seq    int  `json:"seq"`
	Read   bool `json:"read,omitempty"`

	// Due is when the schedule wanted it, Start when it was begun, with the
	// connection that it may have needed first, and End when it was acknowledged
	// or failed.
	Due   time.Time `json:"due"`
	Start time.Time `json:"start"`
	End   time.Time `json:"end"`

	Outcome Outcome `json:"outcome"`
	// Err is the kind of its failure, as in Report.BySQLState.
	Err string `json:"err,omitempty"`

	// Timeline is the one on which it was written; of a read the primary's own,
	// or, of a standby's answer, that of the row it showed. Zero means that it is
	// not known: nothing was written, or shown.
	Timeline uint32 `json:"timeline,omitempty"`
	// Present tells that the check found its row. A read has none.
	Present bool `json:"present,omitempty"`
	// Stale tells that it is one of Report.Stale, or of Reads.Stale.
	Stale bool `json:"stale,omitempty"`

	// Standby tells that a read was answered by a standby.
	Standby bool `json:"standby,omitempty"`
	// Behind is how long a row that a read should have shown had been
	// acknowledged when the read was started. Zero means that it showed all.
	Behind time.Duration `json:"behind_ns,omitempty"`
}

// Attempts yields the record of each transaction of this part, client by
// client and in each client's order, the writers first. A report that was not
// made by Stop, one read from JSON for instance, has none.
func (r Report) Attempts() iter.Seq[Attempt] {
	return func(yield func(Attempt) bool) {
		h := r.history
		if h == nil {
			return
		}
		from, to := r.From.Sub(h.base), r.To.Sub(h.base)
		for _, tracks := range [][]track{h.writers, h.readers} {
			for client := range tracks {
				t := &tracks[client]
				for seq, end := t.part(from, to); seq < end; seq++ {
					if !yield(h.attempt(t, client, seq)) {
						return
					}
				}
			}
		}
	}
}

func (h *history) attempt(t *track, client, seq int) Attempt {
	a := t.attempts[seq]
	p := Attempt{
		Client: client, Seq: seq, Read: t.reads,
		Due: h.base.Add(t.due(seq)), Start: h.base.Add(a.start), End: h.base.Add(a.end),
		Timeline: a.timeline, Present: a.present,
	}
	switch a.outcome {
	case acknowledged:
		p.Outcome = Acknowledged
	case failed:
		p.Outcome = Failed
	case unknown:
		p.Outcome = Unknown
	}
	if a.outcome != acknowledged {
		p.Err = t.failures[a.kind].kind
	}
	if t.reads {
		p.Standby, p.Behind = t.views[seq].standby, h.behind(client, seq)
		p.Stale = h.staleRead(client, seq)
	} else {
		p.Stale = h.staleWrite(a)
	}
	return p
}

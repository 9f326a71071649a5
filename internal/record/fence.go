package record

import (
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/patroni"
)

// FenceKey is the lock of the one fencer that acts.
func FenceKey(path string) string { return Dir(path) + "/fence" }

// FencesKey is where it is written who was fenced. It has no lease: it outlives the fencer that wrote it.
func FencesKey(path string) string { return Dir(path) + "/fences" }

// FencesKept is how many of its last fences a cluster keeps.
const FencesKept = 16

// Fences are the last attempts to fence a member of one cluster, the oldest first, bounded to FencesKept.
type Fences struct {
	V      int     `json:"v"`
	Fences []Fence `json:"fences"`
}

// What became of an attempt.
const (
	FenceBegun       = "begun"       // the fencer was asked, or is about to be; one that died then left it so
	FenceUnconfirmed = "unconfirmed" // it did not confirm; nothing was changed
	FenceLate        = "late"        // confirmed, but the claim was not that one any more, or not ours to end; nothing was changed
	FenceEnded       = "ended"       // confirmed, and the claim of the member was ended
	FenceFailed      = "failed"      // confirmed, but the store did not end the claim; nothing was changed
	FenceUnknown     = "unknown"     // confirmed, and the store did not say whether it ended the claim
)

// Fence is one attempt.
type Fence struct {
	At      time.Time     `json:"at"` // before the fencer was asked, by the clock of who asked
	By      string        `json:"by"`
	Member  string        `json:"member"`
	Epoch   patroni.Epoch `json:"epoch"` // the leadership that the member held
	Outcome string        `json:"outcome"`
	Took    time.Duration `json:"took_ns,omitempty"` // from At to the outcome
	Error   string        `json:"error,omitempty"`
}

func (r *Fences) stamp() { r.V = version }

// With returns the attempts with one more, or with the last one replaced where it is the same attempt.
func (r Fences) With(f Fence) Fences {
	old := r.Fences
	if n := len(old); n > 0 && old[n-1].At.Equal(f.At) && old[n-1].By == f.By {
		old = old[:n-1]
	}
	if n := len(old) - FencesKept + 1; n > 0 {
		old = old[n:]
	}
	return Fences{Fences: append(append([]Fence(nil), old...), f)}
}

// FencesOf returns the attempts in a snapshot of Dir(path), and the version of their record.
func FencesOf(s dcs.Snapshot, path string) (Fences, dcs.Version, error) {
	e, ok := s.Get(FencesKey(path))
	if !ok {
		return Fences{}, dcs.Version{}, nil
	}
	f, err := Decode[Fences](e)
	return f, e.Version, err
}

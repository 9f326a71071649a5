package record

import (
	"net/netip"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/patroni"
)

// HistoryKey is where a pooler's moves are. It has no lease: it outlives the agent that wrote it.
func HistoryKey(path, name string) string { return Dir(path) + "/history/" + name }

// AcceptedKey is where an operator's word is about a leadership that no agent follows by itself.
func AcceptedKey(path string) string { return Dir(path) + "/accepted" }

// Moves is how many of its last moves a pooler's history keeps.
const Moves = 32

// History is what an agent did with its pooler, the oldest move first, bounded to Moves.
type History struct {
	V     int    `json:"v"`
	Moves []Move `json:"moves"`
}

// Move is one change of a pooler's state or route, and why.
type Move struct {
	At        time.Time        `json:"at"`
	From      string           `json:"from"`                // the state before
	To        string           `json:"to"`                  // and after
	Target    []netip.AddrPort `json:"target,omitempty"`    // where its clients are sent after it; none: refused
	Epoch     patroni.Epoch    `json:"epoch"`               // the leadership that the target belongs to
	Cause     string           `json:"cause"`               // the rule that applied
	Leader    string           `json:"leader,omitempty"`    // who held the leader key then
	Evidence  string           `json:"evidence,omitempty"`  // what was known of it: why it was proven, or not
	Operation string           `json:"operation,omitempty"` // that asked for it
}

// Accepted is an operator's word: agents follow this leadership although it is of a rebuilt store, or of another
// database.
type Accepted struct {
	V     int           `json:"v"`
	Epoch patroni.Epoch `json:"epoch"`
	By    string        `json:"by,omitempty"` // for people
	Since time.Time     `json:"since"`
}

func (r *History) stamp()  { r.V = version }
func (r *Accepted) stamp() { r.V = version }

// HistoriesOf returns the moves of all poolers.
func HistoriesOf(s dcs.Snapshot, path string) (map[string]History, error) {
	return all[History](s, Dir(path)+"/history")
}

// AcceptedOf returns the operator's word; false: there is none.
func AcceptedOf(s dcs.Snapshot, path string) (Accepted, bool, error) {
	e, ok := s.Get(AcceptedKey(path))
	if !ok {
		return Accepted{}, false, nil
	}
	a, err := Decode[Accepted](e)
	return a, err == nil, err
}

package record

import (
	"errors"
	"net/netip"
	"strings"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/patroni"
)

// HistoriesDir is the directory of the moves of all poolers. It is outside Dir: all agents watch that one, and what each
// of them did would go to all others.
func HistoriesDir(path string) string { return "/pgconvoy-history" + path }

// HistoryKey is where a pooler's moves are, in a directory of their own. They have no lease: they outlive the agent that
// wrote them.
func HistoryKey(path, name string) string { return HistoriesDir(path) + "/" + name + historyName }

const historyName = "/moves"

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

// PoolerOf is whose moves are at a key in HistoriesDir; empty: nobody's of this cluster.
func PoolerOf(path, key string) string {
	name, ok := strings.CutPrefix(key, HistoriesDir(path)+"/")
	name, moves := strings.CutSuffix(name, historyName)
	if !ok || !moves || strings.Contains(name, "/") { // of a Citus group below
		return ""
	}
	return name
}

// HistoriesOf returns the moves of all poolers in a snapshot of HistoriesDir(path), and which cannot be read.
func HistoriesOf(s dcs.Snapshot, path string) (map[string]History, error) {
	out := map[string]History{}
	var errs []error
	for e := range s.All(HistoriesDir(path)) {
		name := PoolerOf(path, e.Key)
		if name == "" {
			continue
		}
		h, err := Decode[History](e)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out[name] = h
	}
	return out, errors.Join(errs...)
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

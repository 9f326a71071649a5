package topology

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
)

// Event is one move of one pooler, and why its agent made it. Its String is one line that says so.
type Event struct {
	At        time.Time        `json:"at"` // by the clock of the agent's machine
	Pooler    string           `json:"pooler"`
	From      PoolerState      `json:"from"`
	To        PoolerState      `json:"to"`
	Target    []netip.AddrPort `json:"target"`              // where its clients are sent after it; none: they are refused
	Epoch     patroni.Epoch    `json:"epoch"`               // the leadership that the target belongs to
	Cause     string           `json:"cause"`               // the rule that applied
	Evidence  string           `json:"evidence,omitempty"`  // what was known of the leader: why it was proven, or not
	Leader    string           `json:"leader,omitempty"`    // who held the leader key then
	Operation string           `json:"operation,omitempty"` // that asked for it
}

// String is one line: when, who, what, to where, and why.
func (e Event) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: %s -> %s", e.At.UTC().Format("2006-01-02T15:04:05.000Z"), e.Pooler, orDash(string(e.From)), orDash(string(e.To)))
	fmt.Fprintf(&b, ", clients to %s, epoch %s: %s", addrs(e.Target), orDash(e.Epoch.String()), orDash(e.Cause))
	if e.Leader != "" || e.Evidence != "" {
		fmt.Fprintf(&b, " (leader %s: %s)", orDash(e.Leader), orDash(e.Evidence))
	}
	if e.Operation != "" {
		fmt.Fprintf(&b, ", for operation %s", e.Operation)
	}
	return b.String()
}

func eventOf(name string, m record.Move) Event {
	return Event{
		At: m.At, Pooler: name, From: PoolerState(m.From), To: PoolerState(m.To), Target: list(m.Target),
		Epoch: m.Epoch, Cause: m.Cause, Evidence: m.Evidence, Leader: m.Leader, Operation: m.Operation,
	}
}

// Events yields the moves of all poolers: first those that the store has a record of, the oldest first, then each new
// one, none twice. A move is recorded after it was made, within seconds or when the store takes it again. The record
// keeps the last 32 moves of each pooler, and a consumer that is slower than that misses some.
//
// Trouble with the store is no end: what happens meanwhile is yielded afterwards. A record that cannot be read is
// passed over. A non-nil error is the last pair.
func (o *Observer) Events(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		if err := o.Validate(); err != nil {
			yield(Event{}, err)
			return
		}
		told := map[string]heard{}
		var last dcs.Snapshot
		for s, err := range o.Store.Watch(ctx, record.HistoriesDir(o.Path)) {
			for _, e := range news(o.Path, told, s, last) {
				if !yield(e, nil) {
					return
				}
			}
			if err != nil {
				yield(Event{}, err)
				return
			}
			last = s
		}
	}
}

// heard is which moves of a pooler were told.
type heard map[moveID]bool

// moveID tells moves of one pooler apart.
type moveID struct {
	at              int64
	from, to, cause string
	epoch           patroni.Epoch
}

func idOf(m record.Move) moveID { return moveID{m.At.UnixNano(), m.From, m.To, m.Cause, m.Epoch} }

// news returns the moves in what has changed since old that were not told yet, the oldest first, and keeps them in mind.
func news(path string, told map[string]heard, s, old dcs.Snapshot) []Event {
	var out []Event
	for key := range s.Changed(old) {
		e, there := s.Get(key)
		h, err := record.Decode[record.History](e)
		name := record.PoolerOf(path, key)
		if !there || err != nil || name == "" {
			continue
		}
		known := told[name]
		if known == nil {
			known = heard{}
			told[name] = known
		}
		for _, m := range h.Moves {
			if id := idOf(m); !known[id] {
				known[id] = true
				out = append(out, eventOf(name, m))
			}
		}
		if len(known) > 8*record.Moves { // what left the record long ago does not come back
			clear(known)
			for _, m := range h.Moves {
				known[idOf(m)] = true
			}
		}
	}
	slices.SortStableFunc(out, func(a, b Event) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Pooler, b.Pooler)) })
	return out
}

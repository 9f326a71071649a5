package patroni

import (
	"context"
	"iter"
	"net/netip"
	"strconv"
	"time"
)

// Phase says how far a leadership has come.
type Phase int

// The phases, in the order in which a new leader goes through them.
const (
	Unknown   Phase = iota // the store has not answered yet
	Vacant                 // nobody holds the leader key
	Elected                // a member holds the key; nothing more is known
	Promoting              // the holder answers and is not proven writable yet
	Writable               // the holder is proven to be a writable primary
)

func (p Phase) String() string {
	return word(int(p), "unknown", "vacant", "elected", "promoting", "writable")
}

// word names a value of an enumeration, and a strange one by its number.
func word(i int, words ...string) string {
	if i < 0 || i >= len(words) {
		return strconv.Itoa(i)
	}
	return words[i]
}

// Proof is the present answer of one database server.
type Proof struct {
	Writable bool      // it is not in recovery
	Timeline uint32    // a primary's, from the name of its WAL file; of a replica the one it streams, 0 when it does not
	SystemID string    // its system identifier
	LSN      uint64    // how far a primary has written, or a replica replayed, its WAL, in bytes; 0: not told
	At       time.Time // when the question was sent; zero: never asked
	Err      error     // why there is no answer
}

// Prober asks one server again and again.
//
// Probe yields a level: the newest answer, at once when the server is lost. It goes on until the consumer leaves or
// ctx ends; trouble is Proof.Err, never the end. A proof needs SystemID and Timeline. Several Probes of one server may
// run at once; the first answer of each must be asked after Probe was called.
type Prober interface {
	Probe(ctx context.Context, addr netip.AddrPort) iter.Seq[Proof]
}

// Leadership says who leads a cluster and what is proven of it. It is a level: the last known state, always.
type Leadership struct {
	Phase  Phase
	Member string         // the holder of the leader key; empty while vacant
	Addr   netip.AddrPort // where poolers reach the present holder, or the last one while vacant
	Epoch  Epoch          // the last proven one
	Proof  Proof          // the server's present answer; it goes on while the key is vacant
	API    string         // the holder's REST address; empty: none

	Replicas []Replica // the replicas that follow, where the source looks at them

	// Failover is a change of the primary that somebody asked Patroni for, zero: none; Requested is the revision of that
	// request, so that two of them are told apart.
	Failover  Failover
	Requested uint64

	// Outage is what the members themselves say while the store does not answer. nil: it does, nobody asks them, or nothing
	// was heard of them yet.
	Outage *Outage

	Paused bool          // Patroni is in maintenance mode: it will not fail over
	TTL    time.Duration // how long a dead holder keeps the key
	Reason string        // why the phase is what it is, for people
	At     time.Time     // when the proof began (Writable), else when the store's content was confirmed
	Stale  error         // why the store could not confirm this; nil: it is current
}

// Replica is a member that follows the leader.
type Replica struct {
	Member string
	Addr   netip.AddrPort
	Proof  Proof
	Fresh  bool // it answers, streams on the leader's timeline, and is not behind by more than Source.MaxLag
	// Lag is how long ago the primary had written what the replica has replayed, as of the primary's newest answer; 0: it
	// has all, or nobody told positions. It is known as far back as a fresh replica may lag (by default 10 s): that much
	// then means "or more".
	Lag time.Duration
}

// Outage is what was learned past the store while it does not answer. It proves no new leadership: it tells whether the
// last proven one goes on.
//
// The members are asked in rounds: the last holder over SQL and at its REST API, the others over SQL. A member that does
// not answer within a second says nothing.
type Outage struct {
	At time.Time // when the questions of the last whole round were sent
	// Failsafe: the last proven holder's server is writable, on the timeline of Epoch, without a break since it was asked,
	// and its Patroni says that it is the primary by failsafe mode, which every member has agreed to. Never while another
	// one is Ahead.
	Failsafe bool
	// Ahead is a member that was seen writable on a higher timeline than Epoch's since the store fell silent: the last
	// proven leadership is over, whatever becomes of that member. It is told at once. Empty: none.
	Ahead  string
	Reason string // for people
}

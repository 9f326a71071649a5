package patroni

import (
	"context"
	"errors"
	"iter"
	"net/netip"
	"sync"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/mutant"
)

// Source tells who leads a Patroni cluster, and proves it.
//
// A leader is Writable only after: a linearizable read of the leader key begun after the last doubt; an SQL answer,
// asked after that read, that the holder is not in recovery and is the cluster's database; and a second read that
// shows the same acquisition. A doubt is a lost or negative probe, another holder, another acquisition, or another
// timeline. Trouble with the store alone is no doubt: the last proof stands and Stale says so, and meanwhile the members
// themselves are asked what goes on ([Outage]): each over SQL, and the last holder at its REST API, every 2 s while the
// primary was never lost and twice in a second after.
type Source struct {
	Store  dcs.Reader
	Path   string
	Prober Prober // nil: nothing is ever Writable

	Replicas bool // also look at the replicas, for a read service
	// MaxLag is how far behind the primary a fresh replica may be, in time: it has replayed all that the primary had
	// written this long before its newest answer, whenever that was. One that was further behind is fresh again when it is
	// behind by half of this at most, so that it does not come and go. 0: 10 s; negative: as far as it likes. Where the
	// Prober tells no LSN, nothing is asked of it.
	MaxLag time.Duration

	// Client asks the members' REST APIs while the store does not answer ([Outage]). nil: nobody does, and no outage is
	// ever known to be survived.
	Client *Client

	// Resolve turns a member's host name into an address. nil: only literal addresses are understood. News of the
	// store wait for it; where it fails, what it said before stays. It is never called twice at the same time.
	Resolve func(ctx context.Context, host string) (netip.Addr, error)
}

// Watch follows the leadership. Each range proves anew. A non-nil error is the last pair: a bad path, refused
// credentials, or the end of ctx.
func (s *Source) Watch(ctx context.Context) iter.Seq2[Leadership, error] {
	return func(yield func(Leadership, error) bool) {
		if s.Store == nil {
			yield(Leadership{Reason: "no store"}, errors.New("patroni: Source.Store is missing"))
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		w := &sourceWatch{
			Source: s, wake: make(chan struct{}, 1), reports: make(chan report), statuses: make(chan said), standbys: map[string]*probe{},
		}
		sightings, wait := dcs.Latest(s.sightings(ctx))
		defer func() {
			cancel()
			_ = wait() // the reason was yielded, or the consumer left
			w.running.Wait()
		}()
		w.run(ctx, sightings, wait, yield)
	}
}

// repeat is how often an unchanged level is given again, so that a consumer sees its age, and how old the first read
// of a proof may become while the server is not writable.
const repeat = 250 * time.Millisecond

// tenure is one acquisition of the leader key.
type tenure struct {
	member  string
	created uint64
}

func tenureOf(c Cluster) tenure { return tenure{c.Leader, c.LeaderVersion.Created} }

// sourceWatch is one Watch. Only run's goroutine touches it, except for the channels.
type sourceWatch struct {
	*Source
	running sync.WaitGroup
	wake    chan struct{} // some probe has an answer; room for one
	reports chan report   // of the attempt

	sighting
	tenure  tenure // the last one seen: it stays while the key is vacant
	primary *probe // of its holder; nil: the address is not known, or no prober
	answer  *answer

	attempt *attempt // nil: nothing to prove, or proven
	why     string   // what the attempt met
	proven  bool
	since   time.Time // when the first read of the proof began
	epoch   Epoch
	holder  string // whose epoch that was

	standbys map[string]*probe // by member
	written  written           // by the primary, on the timeline of epoch

	outage   *outage   // nil: the store answers, or nothing was ever proven
	statuses chan said // by the last holder's Patroni, in an outage
}

func (w *sourceWatch) run(ctx context.Context, sightings <-chan sighting, wait func() error, yield func(Leadership, error) bool) {
	var last Leadership
	tick := time.NewTicker(repeat)
	defer tick.Stop()
	for first := true; ; first = false {
		var r report
		again := first // give the level although it is the same
		select {
		case s, ok := <-sightings:
			if !ok {
				err := wait()
				if err == nil {
					err = errors.New("patroni: the store's watch ended without a reason")
				}
				yield(w.level(), err)
				return
			}
			w.sawStore(ctx, s)
		case <-w.wake:
		case r = <-w.reports:
		case st := <-w.statuses:
			w.sawStatus(st)
		case <-tick.C:
			again = true
		}
		w.sawAnswers() // always: evidence is judged against the newest
		w.sawReport(r)
		w.sawPosition()
		w.pursue(ctx)
		w.lookPast(ctx)
		l := w.level()
		if !again && same(l, last) {
			continue
		}
		last = l
		if !yield(l, nil) {
			return
		}
	}
}

func (w *sourceWatch) sawStore(ctx context.Context, s sighting) {
	if s.Stale != nil && mutant.Is("law1-store-error-is-vacant") {
		s.Leader = ""
	}
	w.sighting = s
	if s.Leader != "" { // else the last holder goes on being asked
		if t := tenureOf(s.Cluster); t != w.tenure {
			w.tenure = t
			w.doubt()
		}
		if addr := s.homes[s.Leader].ask; w.primary == nil || addr != w.primary.addr {
			w.follow(ctx, addr)
			w.doubt()
		}
	}
	if s.Config.StandbyCluster {
		w.doubt() // its leader is a replica, or about to become one
	}
	if w.Replicas {
		w.followStandbys(ctx)
	}
}

// follow asks another server.
func (w *sourceWatch) follow(ctx context.Context, addr netip.AddrPort) {
	if w.primary != nil {
		w.primary.stop()
	}
	w.primary, w.answer = nil, nil
	if w.Prober != nil && addr.IsValid() {
		w.primary = w.probe(ctx, addr)
	}
}

// doubt withdraws the proof. What was seen before it counts for nothing afterwards.
func (w *sourceWatch) doubt() {
	w.proven = false
	w.giveUp()
}

// sawAnswers takes what the probes have learned.
func (w *sourceWatch) sawAnswers() {
	w.dropAway()
	if w.primary == nil {
		return
	}
	a := w.primary.newest.Load()
	if a == nil || a == w.answer {
		return
	}
	if w.answer != nil && a.breaks != w.answer.breaks {
		w.doubt()
	}
	w.answer = a
	if w.attempt != nil {
		w.attempt.offer(a.Proof)
	}
}

// sawReport takes the outcome of an attempt; the zero report is none.
func (w *sourceWatch) sawReport(r report) {
	switch {
	case r.by == nil || r.by != w.attempt: // of an attempt that a doubt has ended
	case !r.proof.Writable:
		w.why = r.why
	default:
		w.giveUp()
		if w.answer != nil && agree(w.answer.Proof, r.proof) { // else pursue tries anew
			w.proven, w.since = true, r.began
			w.epoch, w.holder = Epoch{SystemID: r.proof.SystemID, Timeline: r.proof.Timeline, Created: w.tenure.created}, w.tenure.member
		}
	}
}

// pursue sees to it that what can be proven is being proven.
func (w *sourceWatch) pursue(ctx context.Context) {
	switch {
	case w.proven || w.Leader == "" || w.primary == nil || w.Config.StandbyCluster:
		w.giveUp()
	case w.attempt == nil:
		w.attempt = w.begin(ctx, w.tenure, w.primary.addr)
		if w.answer != nil {
			w.attempt.offer(w.answer.Proof)
		}
	}
}

func (w *sourceWatch) giveUp() {
	if w.attempt != nil {
		w.attempt.stop()
	}
	w.attempt, w.why = nil, ""
}

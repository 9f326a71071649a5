package topology

import (
	"cmp"
	"context"
	"math/rand/v2"
	"path"
	"slices"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/record"
)

// record notes a change of the state or the route, in the log and in the pooler's history.
func (r *agentRun) record(from PoolerState) {
	l := &r.lead
	evidence := l.Reason
	if l.Proof.Err != nil {
		evidence = l.Proof.Err.Error()
	}
	if o := l.Outage; l.Stale != nil && o != nil {
		evidence = cmp.Or(o.Reason, evidence)
	}
	m := record.Move{
		At: r.since, From: string(from), To: string(r.state), Target: slices.Clone(r.route.Hosts), Epoch: r.epoch,
		Cause: r.reason, Leader: l.Member, Evidence: evidence,
	}
	if r.asking {
		m.Operation = r.asker.id
	}
	r.log.Info("move", "from", m.From, "to", m.To, "cause", m.Cause, "evidence", m.Evidence, "epoch", m.Epoch.String(),
		"leader", m.Leader, "target", addrs(m.Target), "operation", m.Operation)
	r.moves = lastMoves(append(r.moves, m))
	offer(r.told, slices.Clone(r.moves))
}

func lastMoves(m []record.Move) []record.Move { return m[max(0, len(m)-record.Moves):] }

// keepHistory keeps the moves of this run written behind those of earlier ones, through trouble with the store. Moves
// that follow each other closely are written together, and a fleet does not write all at once. What is not written when
// ctx ends has one more attempt.
func (r *agentRun) keepHistory(ctx context.Context) {
	h := &historian{store: r.Store, key: record.HistoryKey(r.Path, r.Name)}
	for {
		var moves []record.Move
		select {
		case <-ctx.Done():
			return
		case moves = <-r.told:
		}
		pause := time.Second + rand.N(time.Second)
		for written := false; !written; {
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
			select {
			case moves = <-r.told:
			default:
			}
			last := ctx.Err() != nil
			err := h.write(context.WithoutCancel(ctx), moves)
			if written = err == nil || last; err != nil {
				r.log.WarnContext(ctx, "the history is not kept; tried again", "error", err)
			}
			pause = time.Second
		}
	}
}

// historian writes one pooler's history.
type historian struct {
	store   dcs.Store
	key     string
	known   bool // what follows is
	version dcs.Version
	earlier []record.Move // of other runs
}

// write replaces the history by the earlier moves and these. After an error it looks anew, for somebody may have removed
// it.
func (h *historian) write(ctx context.Context, moves []record.Move) (err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if !h.known {
		snap, err := h.store.Get(ctx, path.Dir(h.key))
		if err != nil {
			return err
		}
		e, _ := snap.Get(h.key)
		if h.earlier == nil {
			old, _ := record.Decode[record.History](e) // one that cannot be read is begun anew
			h.earlier = append([]record.Move{}, old.Moves...)
		}
		h.version = e.Version
	}
	all := record.History{Moves: lastMoves(append(slices.Clone(h.earlier), moves...))}
	h.version, err = h.store.Put(ctx, h.key, record.Encode(&all), h.version)
	h.known = err == nil
	return err
}

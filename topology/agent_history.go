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
	"github.com/pgconvoy/pgconvoy/patroni"
)

// record notes a change of the state or the route, in the log and in the pooler's history.
func (r *agentRun) record(from PoolerState) {
	l := &r.lead
	evidence := l.Reason
	switch o := l.Outage; {
	case l.Proof.Err != nil:
		evidence = l.Proof.Err.Error()
	case l.Stale != nil && o != nil && (l.Phase != patroni.Writable || o.Ahead != ""):
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
		case moves = <-r.told:
		case <-ctx.Done():
			select {
			case moves = <-r.told:
			default:
				return
			}
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
	earlier []record.Move // of other runs, as the store has them
}

// write puts these moves, the last ones of this run, with what the store has of others. After an error it looks anew:
// somebody may have removed the history, or written there too.
func (h *historian) write(ctx context.Context, moves []record.Move) (err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if !h.known {
		snap, err := h.store.Get(ctx, path.Dir(h.key))
		if err != nil {
			return err
		}
		e, _ := snap.Get(h.key)
		old, _ := record.Decode[record.History](e) // one that cannot be read is begun anew
		h.earlier = slices.DeleteFunc(old.Moves, func(m record.Move) bool {
			return slices.ContainsFunc(moves, func(o record.Move) bool {
				return m.At.Equal(o.At) && m.From == o.From && m.To == o.To && m.Cause == o.Cause
			})
		})
		h.version = e.Version
	}
	merged := append(slices.Clone(h.earlier), moves...)
	slices.SortStableFunc(merged, func(a, b record.Move) int { return a.At.Compare(b.At) })
	all := record.History{Moves: lastMoves(merged)}
	h.version, err = h.store.Put(ctx, h.key, record.Encode(&all), h.version)
	h.known = err == nil
	return err
}

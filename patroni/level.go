package patroni

import (
	"fmt"

	"github.com/pgconvoy/pgconvoy/internal/mutant"
)

// level is the present leadership.
func (w *sourceWatch) level() Leadership {
	home := w.homes[w.tenure.member]
	l := Leadership{
		Member: w.Leader, Addr: home.route, Epoch: w.epoch, API: home.api,
		Failover: w.Failover, Requested: requested(w.Cluster), Outage: w.pastLevel(),
		Paused: w.Config.Paused, TTL: w.Config.TTL, At: w.At, Stale: w.Stale,
	}
	if w.answer != nil {
		l.Proof = w.answer.Proof
	}
	switch {
	case !w.Known():
		l.Phase, l.Reason = Unknown, "the store has not answered yet"
		if w.Stale != nil {
			l.Reason = w.Stale.Error()
		}
	case w.Leader == "":
		l.Phase, l.Reason = Vacant, "nobody holds the leader key"
	case !l.Addr.IsValid():
		l.Phase, l.Reason = Elected, fmt.Sprintf("the address of %s is not known: %s", w.Leader, home.problem())
	case w.proven || mutant.Is("law2-elected-is-writable"):
		l.Phase, l.At, l.Reason = Writable, w.since, "proven"
	case w.Prober == nil:
		l.Phase, l.Reason = Elected, "no prober: a writable primary is never proven"
	case l.Proof.At.IsZero():
		l.Phase, l.Reason = Elected, w.Leader+" was not asked yet"
	case l.Proof.Err != nil:
		l.Phase, l.Reason = Elected, l.Proof.Err.Error()
	case w.Config.StandbyCluster:
		l.Phase, l.Reason = Elected, w.Leader+" leads a standby cluster"
	case !l.Proof.Writable:
		l.Phase, l.Reason = Promoting, w.Leader+" is in recovery"
	case w.why != "":
		l.Phase, l.Reason = Promoting, w.Leader+" is writable; "+w.why
	default:
		l.Phase, l.Reason = Promoting, w.Leader+" is writable; the leader key is read once more"
	}
	if w.Replicas {
		l.Replicas = w.replicas()
	}
	return l
}

// requested tells one request for another primary from the next; zero: there is none. In ZooKeeper a node's first
// version is zero, and its creation tells it apart.
func requested(c Cluster) uint64 {
	switch v := c.FailoverVersion; {
	case c.Failover == Failover{}:
		return 0
	case v.Modified == 0:
		return v.Created
	default:
		return v.Modified
	}
}

// same reports whether two levels differ in nothing but their age, the positions in the WAL, or the words in which a
// server is lost.
func same(a, b Leadership) bool {
	if len(a.Replicas) != len(b.Replicas) || (a.Stale == nil) != (b.Stale == nil) || a.Requested != b.Requested {
		return false
	}
	for i, r := range a.Replicas {
		o := b.Replicas[i]
		if r.Member != o.Member || r.Addr != o.Addr || r.Fresh != o.Fresh {
			return false
		}
	}
	if (a.Outage == nil) != (b.Outage == nil) ||
		a.Outage != nil && (a.Outage.Failsafe != b.Outage.Failsafe || a.Outage.Ahead != b.Outage.Ahead) {
		return false
	}
	lost := a.Proof.Err != nil && b.Proof.Err != nil
	return a.Phase == b.Phase && a.Member == b.Member && a.Addr == b.Addr && a.Epoch == b.Epoch && a.API == b.API &&
		agree(a.Proof, b.Proof) && a.Proof.At.IsZero() == b.Proof.At.IsZero() && (a.Proof.Err == nil) == (b.Proof.Err == nil) &&
		a.Paused == b.Paused && a.TTL == b.TTL && (a.Reason == b.Reason || lost) &&
		(a.Phase != Writable || a.At.Equal(b.At))
}

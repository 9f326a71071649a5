package patroni

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"strconv"
	"time"
)

// SQL is the Prober that asks PostgreSQL itself, over one connection that stays open: the end of the connection tells
// of a crash at once, a bound on each query tells of a server that hangs.
//
// Rights: to log in, and pg_monitor for the timeline of a replica; positions in the WAL need none. [SQL.Checkpoint] needs pg_checkpoint (PostgreSQL
// 15) or a superuser.
type SQL struct {
	Connect Connect       // required
	Bound   time.Duration // how long a connect or a query may take before the server counts as lost; 0: 1 s
	Rest    time.Duration // how often a server is asked when nothing happens; 0: 250 ms
}

// question asks everything in one query, so that the answer is from one moment.
const question = `SELECT r, (SELECT system_identifier FROM pg_control_system()),
CASE WHEN r THEN coalesce((SELECT received_tli FROM pg_stat_wal_receiver WHERE status = 'streaming'), 0)
ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END,
coalesce(CASE WHEN r THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END - '0/0', 0)
FROM (SELECT pg_is_in_recovery() AS r OFFSET 0) s`

// eager is the shortest interval: a server that was just elected is asked this often until it is writable.
const eager = 3 * time.Millisecond

// Probe implements Prober. Until the server is writable it is asked at a fiftieth of the time already waited, so that
// the wait is never prolonged by more than that.
func (s *SQL) Probe(ctx context.Context, addr netip.AddrPort) iter.Seq[Proof] {
	return func(yield func(Proof) bool) {
		var l *link // nil: not connected
		drop := func() {
			if l != nil {
				l.close()
				l = nil
			}
		}
		defer drop()
		since := time.Now() // when the wait for a writable server began; zero: it is one
		for ctx.Err() == nil {
			var p Proof
			if l, p = s.look(ctx, addr, l); p.Err != nil {
				drop()
			}
			if ctx.Err() != nil || !yield(p) {
				return
			}
			pause := s.rest()
			switch {
			case p.Writable:
				since = time.Time{}
			case since.IsZero():
				since = time.Now() // just lost
				fallthrough
			default:
				pause = min(max(time.Since(since)/50, eager), pause)
			}
			if l == nil {
				select {
				case <-ctx.Done():
				case <-time.After(pause):
				}
				continue
			}
			if err := l.wait(pause); err != nil {
				drop()
				p = Proof{At: time.Now(), Err: fmt.Errorf("patroni: connection to %s lost: %w", addr, err)}
				if ctx.Err() != nil || !yield(p) {
					return
				}
				since = time.Now()
			}
		}
	}
}

// look asks once, over a new connection if there is none. It returns the connection that is open afterwards.
func (s *SQL) look(ctx context.Context, addr netip.AddrPort, l *link) (*link, Proof) {
	p := Proof{At: time.Now()}
	if l == nil {
		dctx, cancel := context.WithTimeout(ctx, s.bound())
		defer cancel()
		var err error
		if l, err = dial(dctx, s.Connect, addr); err != nil {
			p.Err = fmt.Errorf("patroni: no connection to %s: %w", addr, err)
			return nil, p
		}
		l.bind(ctx)
		p.At = time.Now()
	}
	if s.ask(l, &p); p.Err != nil {
		p.Err = fmt.Errorf("patroni: no answer from %s: %w", addr, p.Err)
	}
	return l, p
}

func (s *SQL) ask(l *link, p *Proof) {
	row, err := l.query(question, s.bound())
	if err != nil {
		p.Err = err
		return
	}
	if len(row) != 4 {
		p.Err = errors.New("an answer without the four columns that were asked for")
		return
	}
	timeline, err1 := strconv.ParseInt(row[2], 10, 64)
	lsn, err2 := strconv.ParseUint(row[3], 10, 64)
	if p.Err = errors.Join(err1, err2); p.Err != nil {
		return
	}
	p.Writable, p.SystemID, p.Timeline, p.LSN = row[0] == "f", row[1], uint32(timeline), lsn
}

// Checkpoint makes the server write its dirty buffers, so that stopping or promoting it is short. Bounded by ctx.
func (s *SQL) Checkpoint(ctx context.Context, addr netip.AddrPort) error {
	conn, err := s.Connect(ctx, addr)
	if err != nil {
		return fmt.Errorf("patroni: checkpoint on %s: %w", addr, err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, "CHECKPOINT").ReadAll(); err != nil {
		return fmt.Errorf("patroni: checkpoint on %s: %w", addr, err)
	}
	return nil
}

func (s *SQL) bound() time.Duration {
	if s.Bound > 0 {
		return s.Bound
	}
	return time.Second
}

func (s *SQL) rest() time.Duration {
	if s.Rest > 0 {
		return s.Rest
	}
	return 250 * time.Millisecond
}

package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	probeSuffix  = "_probe"
	probeEvery   = 5 * time.Millisecond
	probeTimeout = time.Second // then the connection is taken for dead
)

// prober asks one node, all the time, whether it accepts a write. It keeps a
// row of its own, so it waits for nobody and nobody waits for it.
type prober struct {
	cfg   *pgx.ConnConfig
	write string
	base  time.Time
	acks  []time.Duration // its goroutine's own until that has ended

	first chan<- struct{} // gets one element when any of them is acknowledged
	mu    sync.Mutex
	err   error // the last one
}

func newProber(dsn string, node int, run int64, table string, base time.Time, first chan<- struct{}) (*prober, error) {
	cfg, err := parse(fmt.Sprintf("Load.Direct[%d]", node), dsn)
	if err != nil {
		return nil, err
	}
	// Whether the node accepts writes is the question, not whether a standby
	// confirms them.
	cfg.RuntimeParams["synchronous_commit"] = "local"
	t := quoted(table, probeSuffix)
	return &prober{
		cfg: cfg,
		// No row must exist before: one that a failover lost would stop the probe.
		write: fmt.Sprintf("insert into %s as t values (%d, %d, 1) on conflict (run, node) do update set n = t.n + 1", t, run, node),
		base:  base,
		first: first,
	}, nil
}

// drive probes until ctx ends. A write that is under way then ends by itself,
// or with life: cut short, it might reach the table after Stop has cleaned up.
func (p *prober) drive(ctx, life context.Context) {
	var s *session
	defer func() {
		if s != nil {
			s.close(ctx)
		}
	}()
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	writable := false // what the node was at the last look
	served := false   // the connection has answered before
	for {
		err := func() (err error) {
			ctx, cancel := context.WithTimeout(ctx, probeTimeout)
			defer cancel()
			if s == nil {
				if s, err = dial(ctx, p.cfg); err != nil {
					return err
				}
				served = false
			}
			if !writable {
				// A standby would log an error for each refused write.
				if writable, err = promoted(ctx, s); err != nil || !writable {
					served = served || err == nil
					return err
				}
			}
			life, release := context.WithTimeout(life, probeTimeout)
			defer release()
			if _, err = s.conn.Exec(life, p.write); err != nil {
				writable = false
				return err
			}
			served = true
			p.accepted()
			return nil
		}()
		if err != nil {
			p.note(err)
			writable = false
		}
		if s != nil && s.conn.IsClosed() {
			s.close(ctx)
			s = nil
			if served && ctx.Err() == nil {
				continue // made again at once; one that never answered, at the next tick
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// promoted tells whether the node is out of recovery.
func promoted(ctx context.Context, s *session) (bool, error) {
	results, err := s.conn.PgConn().Exec(ctx, "select pg_is_in_recovery()").ReadAll()
	if err != nil {
		return false, err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 {
		return false, errors.New("pg_is_in_recovery() returned no row")
	}
	return string(results[0].Rows[0][0]) == "f", nil
}

func (p *prober) accepted() {
	p.acks = append(p.acks, time.Since(p.base))
	select {
	case p.first <- struct{}{}:
	default:
	}
}

func (p *prober) note(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

// refusal is why the node did not accept a write.
func (p *prober) refusal() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		return errors.New("in recovery")
	}
	return p.err
}

// awaitNode waits until one of the nodes has accepted a write. A set of nodes
// of which none ever does is a mistake that would show as an endless gap.
func awaitNode(ctx context.Context, first <-chan struct{}, probers []*prober) error {
	if len(probers) == 0 {
		return nil
	}
	select {
	case <-first:
		return nil
	case <-ctx.Done():
	}
	errs := []error{errors.New("ledger: no node of Load.Direct accepted a write")}
	for i, p := range probers {
		errs = append(errs, fmt.Errorf("Load.Direct[%d]: %w", i, p.refusal()))
	}
	return errors.Join(errs...)
}

package topology

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconvoy/pgconvoy/patroni"
)

// vigil knows since when a primary's PostgreSQL has given no answer. It sees each level: one that came back for a moment
// was not silent.
type vigil struct {
	changed chan struct{} // lost is another; room for one

	mu   sync.Mutex
	lead patroni.Leadership
	lost time.Time // zero: it answers, or there is none
}

// watch follows the leadership until it ends.
func (v *vigil) watch(ctx context.Context, source LeaderSource) error {
	for l, err := range source.Watch(ctx) {
		if err != nil {
			return err
		}
		if v.saw(l) {
			select {
			case v.changed <- struct{}{}:
			default:
			}
		}
	}
	return nil
}

// saw takes a level in, and reports whether the silence is another.
func (v *vigil) saw(l patroni.Leadership) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	same := l.Member == v.lead.Member && l.Epoch == v.lead.Epoch && l.API == v.lead.API
	was := v.lost
	switch lost := l.Member != "" && !l.Proof.At.IsZero() && !answered(l.Proof.Err); {
	case !lost:
		v.lost = time.Time{}
	case v.lost.IsZero() || !same:
		v.lost = time.Now()
	}
	v.lead = l
	return !v.lost.Equal(was)
}

func (v *vigil) level() (l patroni.Leadership, lost time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.lead, v.lost
}

// question bounds each question to a member.
const question = time.Second

// deaf reports that a member's REST API was asked and gave no answer at all. Whatever answers is alive, also with an error.
func (r *fencingRun) deaf(ctx context.Context, api string) bool {
	if api == "" {
		return false // nobody was asked
	}
	qctx, cancel := context.WithTimeout(ctx, question)
	defer cancel()
	_, err := r.client.Status(qctx, api)
	return ctx.Err() == nil && unanswered(err)
}

// unanswered tells the error of a request that nobody has answered from one that was answered, or could not be sent: a
// certificate that is not trusted is somebody's, and a name that is not found is nobody's silence.
func unanswered(err error) bool {
	failed, ok := errors.AsType[*url.Error](err) // before the first line of an answer
	if !ok {
		return false
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return false
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return true
	}
	return failed.Timeout() || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)
}

// answered reports whether a database server has given an answer. One that starts, or has no room, says so: it is alive.
func answered(err error) bool {
	_, said := errors.AsType[*pgconn.PgError](err)
	return err == nil || said
}

// ask is a server's present answer to SQL.
func (r *fencingRun) ask(ctx context.Context, m patroni.Member) patroni.Proof {
	addr, err := m.Addr()
	if err != nil {
		return patroni.Proof{Err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*question)
	defer cancel()
	for p := range r.Prober.Probe(ctx, addr) {
		return p
	}
	return patroni.Proof{Err: errors.New("there was no time for an answer")}
}

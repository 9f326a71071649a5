package topology

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"sync"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/pooler"
)

// pools asks the poolers' consoles in the background, each by a goroutine of its own: one that hangs delays no other.
type pools struct {
	ask     func(ctx context.Context, name string, addr netip.AddrPort) (pooler.State, error) // nil: none is asked
	news    chan struct{}                                                                     // some answer differs from the last one; room for one
	running sync.WaitGroup
	asked   map[string]*console // by pooler; for follow's goroutine
}

// console is one pooler's.
type console struct {
	name string
	addr netip.AddrPort
	stop context.CancelFunc

	mu       sync.Mutex
	state    pooler.State // the last answer; At is when the question was sent
	err      error        // why there is none now
	answered bool         // or failed to, once
}

// askEvery is how often a console is asked, and how long it may take.
const askEvery = time.Second

// follow asks the poolers of a roster, and no others.
func (p *pools) follow(ctx context.Context, fleet map[string]record.Fleet) {
	if p.ask == nil {
		return
	}
	for name, c := range p.asked {
		if f, ok := fleet[name]; !ok || f.Address != c.addr {
			c.stop()
			delete(p.asked, name)
		}
	}
	for name, f := range fleet {
		if _, ok := p.asked[name]; ok {
			continue
		}
		cctx, cancel := context.WithCancel(ctx)
		c := &console{name: name, addr: f.Address, stop: cancel}
		p.asked[name] = c
		p.running.Go(func() { p.run(cctx, c) })
	}
}

func (p *pools) run(ctx context.Context, c *console) {
	defer c.stop()
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		began := time.Now()
		actx, cancel := context.WithTimeoutCause(ctx, askEvery, errors.New("no answer within a second"))
		st, err := p.ask(actx, c.name, c.addr)
		if cause := context.Cause(actx); err != nil && cause != nil {
			err = cause
		}
		cancel()
		if ctx.Err() != nil {
			return
		}
		st.At = began
		if c.take(st, err) {
			select {
			case p.news <- struct{}{}:
			default:
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// take keeps an answer and reports whether it says anything new.
func (c *console) take(st pooler.State, err error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := !c.answered
	c.answered = true
	if err != nil {
		news := first || c.err == nil || c.err.Error() != err.Error()
		c.err = err
		return news
	}
	old := c.state
	old.At = st.At
	news := first || c.err != nil || !reflect.DeepEqual(old, st)
	c.state, c.err = st, nil
	return news
}

// views returns the figures of those that have answered or failed to, and whether these are all.
func (p *pools) views() (out map[string]*PoolView, all bool) {
	out, all = map[string]*PoolView{}, true
	for name, c := range p.asked {
		if v := c.view(); v != nil {
			out[name] = v
		} else {
			all = false
		}
	}
	return out, all
}

func (c *console) view() *PoolView {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.answered {
		return nil
	}
	st := c.state
	v := &PoolView{
		Version: st.Version, Clients: st.Clients, Waiting: st.Waiting, Servers: st.Servers, Held: st.Held,
		Seen: Seen{Source: FromConsole, Key: c.name, At: st.At},
	}
	if v.Servers == nil {
		v.Servers = map[netip.AddrPort]int{}
	}
	if c.err != nil {
		v.Error = c.err.Error()
	}
	return v
}

package local

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/record"
)

// store is where a stack's state is.
type store struct {
	*connection
	DCS    DCS
	wiring *wiring
}

// from is the store as a component reaches it.
func (s *store) from(component string) (DCS, error) {
	hosts, err := s.DCS.hosts()
	if err != nil || s.wiring.via == nil {
		return s.DCS, err
	}
	for i, h := range hosts {
		addr, err := netip.ParseAddrPort(h)
		if err != nil {
			return s.DCS, fmt.Errorf("local: Runner.Via: %s is not a literal address: %w", s.DCS.Endpoints[i], err)
		}
		through, err := s.wiring.reach(component, s.DCS.server(i), addr)
		if err != nil {
			return s.DCS, err
		}
		hosts[i] = through.String()
	}
	return s.DCS.at(hosts), nil
}

// openStore connects to the stack's own servers, or to the caller's. There a throwaway stack takes a path that nobody
// uses, and removes it at the end.
func (s *Stack) openStore(ctx context.Context) (*store, error) {
	d := s.kind
	hosts, err := d.hosts()
	if err != nil {
		return nil, err
	}
	for _, m := range s.members { // a client that is refused once waits for a second
		if err := m.await(ctx); err != nil {
			return nil, fmt.Errorf("local: %s does not start (its log is in %s): %w", m.name, s.logs, err)
		}
		hosts = append(hosts, m.Client.String())
	}
	d = d.at(hosts)
	c, err := d.connect()
	if err != nil {
		return nil, err
	}
	st := &store{connection: c, DCS: d, wiring: &s.wiring}
	snap, err := s.firstRead(ctx, st)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("local: the store (%s at %s) does not answer: %w", d.Kind, strings.Join(hosts, ","), err), c.close())
	}
	if s.kind.own() || !s.folder.throwaway {
		return st, nil
	}
	for e := range snap.All(s.spec.Path) {
		return nil, errors.Join(fmt.Errorf("local: Spec.Path %s is in use in the store (%s at %s; %s is there); give another path, or the Dir of that cluster",
			s.spec.Path, d.Kind, strings.Join(hosts, ","), e.Key), c.close())
	}
	st.connection = &connection{c.Store, c.remove, func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		return errors.Join(c.remove(ctx, s.spec.Path), c.remove(ctx, record.Dir(s.spec.Path)),
			c.remove(ctx, record.HistoriesDir(s.spec.Path)), c.close())
	}}
	return st, nil
}

// firstRead waits for our own servers, which have just been started.
func (s *Stack) firstRead(ctx context.Context, store dcs.Store) (dcs.Snapshot, error) {
	limit := 5 * time.Second
	if len(s.members) > 0 {
		limit = 30 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		snap, err := store.Get(ctx, s.spec.Path)
		if err == nil || len(s.members) == 0 {
			return snap, err
		}
		select {
		case <-ctx.Done():
			return snap, errors.Join(context.Cause(ctx), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

package topology

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/record"
)

// Drain takes a pooler out of service without cutting anybody off. It marks the roster entry, so that no Envoy sends it
// new clients, and returns nil when every Envoy of every live control plane has been told and the pooler's agent says
// that no client is left. Then the pooler may be stopped. The mark stays, over any restart, until [Fleet.Admit].
//
// Clients leave when they like: give ctx the time that you give them. When it ends first, the error says what is still
// missing, and the pooler goes on draining. It is refused where no other pooler of the service has a live agent that has
// not failed and is not draining; a mark from before stays then. An Envoy that no live control plane knows is not waited
// for.
func (f *Fleet) Drain(ctx context.Context, name string) error {
	wrote, err := f.mark(ctx, name, true)
	if err != nil {
		return err
	}
	if err := f.unlessLast(ctx, name, wrote); err != nil {
		return err
	}
	if missing, err := f.awaitDrained(ctx, name); err != nil {
		return fmt.Errorf("topology: Fleet.Drain %s of %s: it is marked, but %s: %w; drain it again to go on waiting, or admit it",
			name, f.Path, missing, err)
	}
	return nil
}

// unlessLast refuses where no other is left, since others were marked at the same time or have failed. Only a mark that
// this drain wrote is taken back.
func (f *Fleet) unlessLast(ctx context.Context, name string, wrote bool) error {
	s, err := f.Store.Get(ctx, record.Dir(f.Path))
	if err != nil {
		return fmt.Errorf("topology: Fleet.Drain %s of %s: it is marked, but whether another serves is not known: %w", name, f.Path, err)
	}
	fleet, _ := record.FleetOf(s, f.Path)
	entry, ok := fleet[name]
	if !ok || f.another(s, name, entry.Service) {
		return nil
	}
	if wrote {
		if err := f.Admit(ctx, name); err != nil {
			return fmt.Errorf("topology: Fleet.Drain %s of %s: no other of its service serves, and its mark may still be there; admit it: %w", name, f.Path, err)
		}
	}
	return lastOne(name, entry.Service)
}

// recount is how long a pooler must be seen drained: its agent may have counted the clients before the last Envoy knew.
const recount = 3 * look

// awaitDrained waits; its error comes with what is missing then.
func (f *Fleet) awaitDrained(ctx context.Context, name string) (missing string, err error) {
	wctx, cancel := context.WithCancel(ctx)
	ours, wait := dcs.Latest(f.Store.Watch(wctx, record.Dir(f.Path)))
	defer func() {
		cancel()
		_ = wait() // returned below
	}()
	missing = "the store has not answered yet"
	var settled <-chan time.Time
	for {
		var s dcs.Snapshot
		last := false
		select {
		case <-ctx.Done():
			return missing, context.Cause(ctx)
		case v, open := <-ours:
			if !open {
				if ctx.Err() != nil {
					return missing, context.Cause(ctx)
				}
				return missing, orEnded(wait())
			}
			s = v
		case <-settled:
			if s, err = f.Store.Get(ctx, record.Dir(f.Path)); err != nil {
				s = dcs.Snapshot{Stale: err}
			}
			last = true
		}
		if missing, err = f.missing(s, name); err != nil {
			return missing, err
		}
		switch {
		case missing != "":
			settled = nil
		case last:
			return "", nil
		case settled == nil:
			missing, settled = "it was drained a moment ago only", time.After(recount)
		default:
			missing = "it was drained a moment ago only"
		}
	}
}

// missing says what keeps a pooler from being drained; empty: nothing. An error: it will never be.
func (f *Fleet) missing(s dcs.Snapshot, name string) (string, error) {
	switch {
	case s.Stale != nil:
		return "the store does not answer: " + s.Stale.Error(), nil
	case !s.Known():
		return "the store has not answered yet", nil
	}
	e, there := s.Get(record.FleetKey(f.Path, name))
	if !there {
		return "it is not in the fleet any more", errors.New("somebody removed it meanwhile")
	}
	entry, err := record.Decode[record.Fleet](e)
	if err != nil {
		return "its roster entry cannot be read", err
	}
	if !entry.Draining {
		return "the mark is gone", errors.New("somebody admitted it meanwhile")
	}
	var out []string
	planes, err := record.ControlPlanesOf(s, f.Path)
	if err != nil {
		out = append(out, "a control plane cannot be read: "+err.Error())
	}
	for _, plane := range slices.Sorted(maps.Keys(planes)) {
		st := planes[plane].Services[entry.Service]
		if !slices.Contains(st.Draining, name) {
			why := "control plane " + plane + " has not taken it out"
			if st.Kept != "" {
				why += " (" + st.Kept + ")"
			}
			out = append(out, why)
			continue
		}
		for _, envoy := range st.Envoys {
			if slices.Contains(st.Applied, envoy) {
				continue
			}
			why := fmt.Sprintf("Envoy %s of control plane %s has not applied it", envoy, plane)
			if rejected := st.Rejected[envoy]; rejected != "" {
				why += " (" + rejected + ")"
			}
			out = append(out, why)
		}
	}
	poolers, err := record.PoolersOf(s, f.Path)
	switch p, live := poolers[name]; {
	case !live && err != nil:
		out = append(out, "what its agent says cannot be read: "+err.Error())
	case !live:
		out = append(out, "its agent does not answer")
	case !slices.Contains(p.Abilities, record.AbilityDrain):
		out = append(out, "its agent cannot drain: use a newer one")
	case !p.Draining:
		out = append(out, "its agent has not begun to drain")
	case !p.Empty:
		out = append(out, name+" still has clients")
	}
	return strings.Join(out, ", "), nil
}

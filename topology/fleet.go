package topology

import (
	"context"
	"errors"
	"fmt"
	"path"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/patroni"
)

// Fleet is an operator's hand on a fleet: it takes a pooler out of service and back, removes it from the roster, and
// tells agents which leadership to follow where they cannot know.
//
// Every method blocks until it is done or ctx has ended, and is safe to repeat, also after an error. A [*RefusedError]
// says that nothing was changed, why, and what to do.
//
// Rights: to read and to write below /pgconvoy<Path> and /pgconvoy-history<Path>.
type Fleet struct {
	Path  string // Patroni's namespace and scope: "/service/demo"
	Store dcs.Store
}

// Validate is what every method checks first.
func (f *Fleet) Validate() error {
	var errs []error
	if err := CheckPath(f.Path); err != nil {
		errs = append(errs, fmt.Errorf("topology: Fleet.%w", err))
	}
	if f.Store == nil {
		errs = append(errs, errors.New("topology: Fleet.Store is missing"))
	}
	return errors.Join(errs...)
}

// Admit puts a pooler back into service: it gets new clients again. It is the undoing of Drain, at any moment.
func (f *Fleet) Admit(ctx context.Context, name string) error {
	_, err := f.mark(ctx, name, false)
	return err
}

// Remove takes a pooler off the roster, with its history: no operation asks it to hold any more, and its endpoint goes
// from the balancers, unless it is the last of its service. It is refused while the pooler's agent lives, which would put
// it on the roster again, as does one that starts later. To spare its clients, drain it and then stop it. Whoever is not
// there is removed.
func (f *Fleet) Remove(ctx context.Context, name string) error {
	return f.editPooler(ctx, "Fleet.Remove", name, func(ctx context.Context, s dcs.Snapshot) error {
		if _, live := s.Get(record.PoolerKey(f.Path, name)); live {
			return &RefusedError{[]Refusal{{
				"pooler " + name + " has a live agent, which would put it on the roster again",
				"stop its agent; draining the pooler first (Fleet.Drain) spares its clients",
			}}}
		}
		if e, there := s.Get(record.FleetKey(f.Path, name)); there {
			if err := f.Store.Delete(ctx, e.Key, e.Version); err != nil {
				return err
			}
		}
		key := record.HistoryKey(f.Path, name)
		moves, err := f.Store.Get(ctx, path.Dir(key))
		if err != nil {
			return err
		}
		if e, there := moves.Get(key); there {
			return f.Store.Delete(ctx, e.Key, e.Version)
		}
		return nil
	})
}

// Accept has the agents follow a leadership that none follows by itself: one whose epoch says that the store was rebuilt
// (the same timeline, a lower revision, another address), or that the database is another one (another system
// identifier). Agents cannot tell either from an old primary that came back; they hold, and clients are refused in the
// end. Say so when you know that the old primary is gone for good and that this one has the data that you want: after
// the store was restored or emptied, or the cluster was made anew from a backup.
//
// The epoch to accept is in the Error of the poolers that wait for it ([PoolerView]); [patroni.ParseEpoch] reads it. It
// is for this one epoch: a word that was given for another one, before or by mistake, moves nobody.
func (f *Fleet) Accept(ctx context.Context, epoch patroni.Epoch) error {
	if epoch.SystemID == "" || epoch.Timeline == 0 || epoch.Created == 0 {
		return fmt.Errorf("topology: Fleet.Accept: epoch %q is not whole: it has a system identifier, a timeline and a revision", epoch)
	}
	return f.edit(ctx, "Fleet.Accept", epoch.String(), func(ctx context.Context, s dcs.Snapshot) error {
		key := record.AcceptedKey(f.Path)
		e, _ := s.Get(key)
		if said, ok, _ := record.AcceptedOf(s, f.Path); ok && said.Epoch == epoch {
			return nil
		}
		word := record.Accepted{Epoch: epoch, By: thisProcess(), Since: time.Now()}
		_, err := f.Store.Put(ctx, key, record.Encode(&word), e.Version)
		return err
	})
}

// mark writes or takes back the draining mark of a roster entry; the entry's other fields stay. wrote: it was not so
// before.
func (f *Fleet) mark(ctx context.Context, name string, draining bool) (wrote bool, err error) {
	op := "Fleet.Admit"
	if draining {
		op = "Fleet.Drain"
	}
	err = f.editPooler(ctx, op, name, func(ctx context.Context, s dcs.Snapshot) error {
		e, there := s.Get(record.FleetKey(f.Path, name))
		if !there {
			return &RefusedError{[]Refusal{{"there is no pooler " + name + " in the fleet of " + f.Path, "see Observer.View for those that there are"}}}
		}
		entry, err := record.Decode[record.Fleet](e)
		if err != nil || entry.Draining == draining {
			return err
		}
		if draining && !f.another(s, name, entry.Service) {
			return lastOne(name, entry.Service)
		}
		entry.Draining = draining
		_, err = f.Store.Put(ctx, e.Key, record.Encode(&entry), e.Version)
		wrote = wrote || err == nil || errors.Is(err, dcs.ErrUnknown)
		return err
	})
	return wrote, err
}

// another reports whether a service has a pooler, other than this one, that new clients can be sent to: its agent lives
// and has not failed, and it is not draining.
func (f *Fleet) another(s dcs.Snapshot, name, service string) bool {
	fleet, _ := record.FleetOf(s, f.Path) // one that cannot be read is not counted on
	poolers, _ := record.PoolersOf(s, f.Path)
	for other, entry := range fleet {
		p, live := poolers[other]
		if other != name && entry.Service == service && !entry.Draining && live && p.State != string(Failed) {
			return true
		}
	}
	return false
}

func lastOne(name, service string) error {
	return &RefusedError{[]Refusal{{
		fmt.Sprintf("pooler %s is the last of the %s service that serves and is not draining: its clients would have nowhere to go", name, service),
		"admit or start another one first",
	}}}
}

// editPooler is edit for one pooler.
func (f *Fleet) editPooler(ctx context.Context, op, name string, change func(context.Context, dcs.Snapshot) error) error {
	if err := f.Validate(); err != nil {
		return err
	}
	if err := checkName(op+": the pooler's name", name); err != nil {
		return err
	}
	return f.edit(ctx, op, name, change)
}

// edit does change on what the store has now, and again when somebody else was faster or an answer was lost: what there
// is then tells what became of it.
func (f *Fleet) edit(ctx context.Context, op, subject string, change func(context.Context, dcs.Snapshot) error) error {
	if err := f.Validate(); err != nil {
		return err
	}
	var unsure error // what became of the last write
	for {
		s, err := f.Store.Get(ctx, record.Dir(f.Path))
		if err == nil {
			unsure = nil
			err = change(ctx, s)
		}
		switch _, refused := errors.AsType[*RefusedError](err); {
		case err == nil:
			return nil
		case refused:
			return err
		case !errors.Is(err, dcs.ErrConflict) && !errors.Is(err, dcs.ErrUnknown):
			if unsure != nil {
				err = fmt.Errorf("%w, after %w", err, unsure)
			}
			return fmt.Errorf("topology: %s %s of %s: %w", op, subject, f.Path, err)
		}
		unsure = err
		select {
		case <-ctx.Done():
			return fmt.Errorf("topology: %s %s of %s: %w, after %w", op, subject, f.Path, context.Cause(ctx), unsure)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

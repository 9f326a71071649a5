package topology

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/record"
	"github.com/pgconvoy/pgconvoy/pooler"
)

// rights is a store as one user sees it who may read and write in some directories only. What is beyond them fails,
// and fails the test.
type rights struct {
	dcs.Store
	t           *testing.T
	user        string
	read, write []string
}

func (r rights) check(verb, key string, dirs []string) error {
	for _, dir := range dirs {
		if key == dir || strings.HasPrefix(key, dir+"/") {
			return nil
		}
	}
	err := fmt.Errorf("permission denied: %s may not %s %s", r.user, verb, key)
	r.t.Error(err)
	return err
}

func (r rights) Get(ctx context.Context, dir string) (dcs.Snapshot, error) {
	if err := r.check("read", dir, r.read); err != nil {
		return dcs.Snapshot{}, err
	}
	return r.Store.Get(ctx, dir)
}

func (r rights) Watch(ctx context.Context, dir string) iter.Seq2[dcs.Snapshot, error] {
	if err := r.check("watch", dir, r.read); err != nil {
		return func(yield func(dcs.Snapshot, error) bool) { yield(dcs.Snapshot{}, err) }
	}
	return r.Store.Watch(ctx, dir)
}

func (r rights) Put(ctx context.Context, key string, value []byte, prev dcs.Version) (dcs.Version, error) {
	return rightsWriter{r.Store, r}.Put(ctx, key, value, prev)
}

func (r rights) Delete(ctx context.Context, key string, prev dcs.Version) error {
	return rightsWriter{r.Store, r}.Delete(ctx, key, prev)
}

func (r rights) Lease(ctx context.Context, fn func(context.Context, dcs.Writer) error) error {
	return r.Store.Lease(ctx, func(ctx context.Context, w dcs.Writer) error { return fn(ctx, rightsWriter{w, r}) })
}

type rightsWriter struct {
	w dcs.Writer
	r rights
}

func (w rightsWriter) Put(ctx context.Context, key string, value []byte, prev dcs.Version) (dcs.Version, error) {
	if err := w.r.check("write", key, w.r.write); err != nil {
		return dcs.Version{}, err
	}
	return w.w.Put(ctx, key, value, prev)
}

func (w rightsWriter) Delete(ctx context.Context, key string, prev dcs.Version) error {
	if err := w.r.check("delete", key, w.r.write); err != nil {
		return err
	}
	return w.w.Delete(ctx, key, prev)
}

// Each role does all that it does with the rights that its documentation names and no more: Patroni's keys are as
// Patroni left them, whatever happened.
func TestRights(t *testing.T) {
	inBubble(t, func(b *bench) {
		f := newFleet(b)
		ours, moves := record.Dir(demo), record.HistoriesDir(demo)
		as := func(user string, s dcs.Store, write ...string) dcs.Store {
			return rights{s, t, user, append([]string{demo, ours}, write...), write}
		}
		for _, name := range []string{"pgb-3", "pgb-4"} {
			p := &fakePooler{state: pooler.State{Target: pooler.Target{Hosts: f.poolers[0].state.Target.Hosts, Mark: epoch1.String()}}}
			a := b.agent(name, p)
			a.Store, a.Patroni = as("agent", b.store, ours, moves), b.client()
			if name == "pgb-4" {
				a.Service = Read
			}
			b.run(a)
			if a.Service == Write {
				f.agents, f.poolers = append(f.agents, a), append(f.poolers, p)
			}
		}
		plane := &ControlPlane{Cluster: b.cluster(), Name: "cp", Router: &fakeRouter{}}
		plane.Store = as("control plane", b.store, ours)
		b.run(plane)
		f.co.Store = as("coordinator", f.co.Store, ours)
		o := &Observer{Path: demo, Store: as("observer", b.store), Leaders: b.leads}
		b.wait(time.Second)
		before := b.patronis()

		// Planned, by the hooks of all nodes.
		for _, m := range []string{"n1", "n2", "n3"} {
			if err := (&BeforeStop{Path: demo, Store: as("hook", b.store, ours), Member: m}).Install(b.Context()); err != nil {
				t.Error(err)
			}
		}
		b.rest.answers(func(*http.Request, string) (*http.Response, error) {
			if err := (&BeforeStop{Path: demo, Store: as("hook", b.store, ours), Member: "n1"}).Run(b.Context()); err != nil {
				t.Errorf("the hook: %v", err)
			}
			b.leads.set(proven("n2", addr2, epoch2))
			return reply(http.StatusOK, ""), nil
		})
		if _, err := f.co.Do(b.Context(), Switchover{}); err != nil {
			t.Errorf("switchover: %v", err)
		}
		f.all(Routed)
		if v := o.View(b.Context()); len(v.Poolers) != 4 || v.Stale != "" {
			t.Errorf("the observer sees %+v", v)
		}

		// Unplanned: the Patroni of the dead primary is woken.
		b.rest.answers(nil)
		b.rest.sent()
		b.leads.set(dead(proven("n2", addr2, epoch2)))
		b.wait(time.Second)
		f.all(Held)
		if sent := b.rest.sent(); len(sent) == 0 || !strings.HasPrefix(sent[0].what, "PATCH ") {
			t.Errorf("Patroni was not woken: %v", sent)
		}
		b.leads.set(proven("n3", addr3, epoch3))
		f.all(Routed)
		b.wait(time.Minute)

		if after := b.patronis(); !slices.Equal(before, after) {
			t.Errorf("Patroni's keys were\n%v, now\n%v", before, after)
		}
	})
}

// patronis are Patroni's keys with their versions, and their values.
func (b *bench) patronis() []string {
	b.Helper()
	synctest.Wait()
	s, err := b.store.Get(b.Context(), demo)
	if err != nil {
		b.Fatal(err)
	}
	keys := map[string]bool{}
	for e := range s.All(demo) {
		keys[fmt.Sprintf("%s at %v: %s", e.Key, e.Version, e.Value)] = true
	}
	return slices.Sorted(maps.Keys(keys))
}

package patroni_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/memory"
	"github.com/pgconvoy/pgconvoy/internal/leak"
	"github.com/pgconvoy/pgconvoy/patroni"
)

// namespace is a memory store with clusters in it, and a watch of them all.
type namespace struct {
	*testing.T
	*memory.Store
	elements <-chan patroni.Cluster
}

func newNamespace(t *testing.T) *namespace {
	return &namespace{T: t, Store: &memory.Store{Reconfirm: time.Hour}}
}

// set writes a key below /service, or removes it.
func (n *namespace) set(key string, value ...string) {
	n.Helper()
	key = "/service/" + key
	s, err := n.Get(n.Context(), "/service")
	if err != nil {
		n.Fatal(err)
	}
	e, _ := s.Get(key)
	if len(value) == 0 {
		err = n.Delete(n.Context(), key, e.Version)
	} else {
		_, err = n.Put(n.Context(), key, []byte(value[0]), e.Version)
	}
	if err != nil {
		n.Fatal(err)
	}
}

// follow runs the watch, which hands over one element at a time, as fast as they are taken.
func (n *namespace) follow() {
	n.Helper()
	ctx, cancel := context.WithCancel(n.Context())
	c := make(chan patroni.Cluster)
	done := make(chan error, 1)
	go func() {
		defer close(c)
		for e, err := range patroni.WatchAll(ctx, n.Store, "/service") {
			if err != nil {
				done <- err
				return
			}
			select {
			case c <- e:
			case <-ctx.Done():
			}
		}
		done <- nil
	}()
	n.elements = c
	n.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			n.Errorf("the watch ended with %v", err)
		}
	})
}

// want takes elements until there are no more, and compares them.
func (n *namespace) want(want ...string) {
	n.Helper()
	var got []string
	for {
		synctest.Wait()
		select {
		case c := <-n.elements:
			s := c.String()
			if c.Gone {
				s += " (gone)"
			}
			if c.Stale != nil {
				s += " (stale)"
			}
			if !c.Known() {
				s += " (unknown)"
			}
			got = append(got, strings.Replace(s, ": leader ", " ", 1))
			continue
		default:
		}
		break
	}
	if !slices.Equal(got, want) {
		n.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestWatchAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNamespace(t)
		n.set("b/leader", "n1")
		n.set("b/members/n1", `{"role":"primary","state":"running"}`)
		n.set("a/config", `{"ttl":20}`)
		n.set("citus/0/leader", "c1")
		n.set("citus/12/leader", "d1")
		for _, foreign := range []string{"x", "x/y", "x/members/n1/z", "x/1/leader/z", "x/1a/leader", "team/a/leader", "a/foreign"} {
			n.set(foreign, "1")
		}
		n.follow()
		n.want("/service/a nobody", "/service/b n1, n1 primary running", "/service/citus/0 c1", "/service/citus/12 d1", "/service nobody")

		n.set("b/leader", "n2")
		n.want("/service/b n2, n1 primary running")
		n.set("citus/12/leader")
		n.want("/service/citus/12 nobody (gone)")
		n.set("citus/12/leader", "d2")
		n.want("/service/citus/12 d2")
		n.set("b/members/n1")
		n.want("/service/b n2")
		n.set("new/initialize", "") // Patroni's first word
		n.want("/service/new nobody")
		time.Sleep(90 * time.Minute)
		n.want("/service nobody") // confirmed
	})
}

func TestWatchAllWhileDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNamespace(t)
		for i := range 100 {
			n.set(fmt.Sprintf("c%d/leader", i), "n1")
		}
		n.SetDown(errors.New("no quorum"))
		n.follow()
		n.want("/service nobody (stale) (unknown)")
		n.SetDown(nil)
		synctest.Wait()
		for range 100 {
			if c := <-n.elements; c.Leader != "n1" || c.Stale != nil || !c.Known() {
				t.Errorf("%v, stale %v, known %v", c, c.Stale, c.Known())
			}
		}
		n.want("/service nobody")
		n.SetDown(errors.New("no quorum"))
		time.Sleep(3 * time.Hour)
		n.want("/service nobody (stale)") // once, not once for each cluster
		n.SetDown(nil)
		synctest.Wait()
		n.set("c7/leader", "n2")
		n.want("/service nobody", "/service/c7 n2")
	})
}

// Whatever trouble began before the clusters were known, the namespace's own element comes after them.
func TestWatchAllTellsWhenAllWasGiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNamespace(t)
		n.set("a/leader", "n1")
		n.set("b/leader", "n1")
		n.SetDown(errors.New("no quorum"))
		n.follow()
		synctest.Wait() // that the store is down is on offer, and not taken
		n.SetDown(errors.New("no route"))
		synctest.Wait()
		n.SetDown(nil)
		synctest.Wait()
		n.want("/service nobody (stale) (unknown)", "/service/a n1", "/service/b n1", "/service nobody")
	})
}

// A cluster that changes all the time is given again and again, and the others in their turn, each at its newest.
func TestWatchAllIsFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNamespace(t)
		const quiet = 50
		for i := range quiet {
			n.set(fmt.Sprintf("c%d/leader", i), "n1")
		}
		n.set("busy/leader", "0")
		n.follow()
		synctest.Wait()
		for i := range quiet {
			n.set(fmt.Sprintf("c%d/leader", i), "n2") // the first of them was offered already
		}
		given := map[string]int{}
		newest := map[string]string{}
		for i := range 2*quiet + 3 {
			n.set("busy/leader", fmt.Sprint(i+1))
			synctest.Wait()
			c := <-n.elements
			given[c.Path]++
			newest[c.Path] = c.Leader
		}
		for i := range quiet {
			path := fmt.Sprintf("/service/c%d", i)
			if given[path] == 0 || given[path] > 2 || newest[path] != "n2" {
				t.Errorf("%s was given %d times, last with %q", path, given[path], newest[path])
			}
		}
		if given["/service/busy"] < quiet/2 {
			t.Errorf("the busy one was given %d times", given["/service/busy"])
		}
	})
}

func TestWatchAllThatCameAndWent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNamespace(t)
		n.set("a/leader", "n1")
		n.follow()
		synctest.Wait() // a is on offer
		n.set("b/leader", "n1")
		synctest.Wait()
		n.set("b/leader")
		n.set("a/leader")
		n.want("/service/a n1", "/service nobody", "/service/a nobody (gone)")
	})
}

// After any history what was given is what the store has, decoded as if it had been read at once.
func TestWatchAllAgainstParse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNamespace(t)
		n.follow()
		values := map[string][]string{
			"initialize": {"", "7268616322854375442"},
			"leader":     {"n1", "n2"},
			"config":     {`{"ttl":30,"pause":true}`, `{"synchronous_mode":"quorum"}`, "broken"},
			"sync":       {`{"leader":"n1","sync_standby":"n2"}`, "{}"},
			"failover":   {`{"leader":"n1","member":"n2"}`, "{}"},
			"history":    {`[[1,25623960,"no recovery target specified","2024-05-01T10:00:00+00:00","n2"]]`, "[]"},
			"status":     {`{"optime":67419584}`, "12"}, "optime/leader": {"11", "13"},
			"failsafe":   {`{}`},
			"members/n1": {`{"state":"running","role":"primary","tags":{"nofailover":true}}`, `{"state":"stopped"}`},
			"members/n2": {`{"state":"running","role":"replica","timeline":2}`}, "members/n3": {"postgres://10.0.0.3/"},
			"foreign": {"1"},
		}
		names := slices.Sorted(maps.Keys(values))
		paths := []string{"a", "ab", "citus/0", "citus/1"}
		clusters := map[string]patroni.Cluster{}
		there := map[string]bool{}
		for range 3000 {
			name := names[rand.N(len(names))]
			key := paths[rand.N(len(paths))] + "/" + name
			if there[key] && rand.N(2) == 0 {
				n.set(key)
				delete(there, key)
			} else {
				n.set(key, values[name][rand.N(len(values[name]))])
				there[key] = true
			}
			for range rand.N(3) { // sometimes slow
				synctest.Wait()
				select {
				case c := <-n.elements:
					clusters[c.Path] = c
				default:
				}
			}
		}
		for range 100 {
			synctest.Wait()
			select {
			case c := <-n.elements:
				clusters[c.Path] = c
			default:
			}
		}
		s, err := n.Get(t.Context(), "/service")
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			want, err := patroni.Parse("/service/"+path, s)
			if err != nil {
				t.Fatal(err)
			}
			got := clusters[want.Path]
			got.At = want.At
			if len(got.Members) == 0 && len(want.Members) == 0 {
				got.Members, want.Members = nil, nil
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s\ngot  %+v\nwant %+v", path, got, want)
			}
		}
	})
}

func TestWatchAllEnds(t *testing.T) {
	leak.Check(t)
	for c, err := range patroni.WatchAll(t.Context(), memory.New(), "/service/") {
		if !errors.Is(err, dcs.ErrInvalid) || !strings.Contains(err.Error(), `namespace "/service/"`) {
			t.Errorf("%v, %v", c, err)
		}
	}
	store := memory.New()
	for i := range 10 {
		if _, err := store.Put(t.Context(), fmt.Sprintf("/service/c%d/leader", i), []byte("n1"), dcs.Version{}); err != nil {
			t.Fatal(err)
		}
	}
	for range patroni.WatchAll(t.Context(), store, "/service") {
		break
	}
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	var last error
	pairs := 0
	for c, err := range patroni.WatchAll(ctx, store, "/service") {
		if last != nil {
			t.Error("a pair after the error")
		}
		if pairs++; c.Path == "/service" {
			cancel(why)
		}
		last = err
	}
	if !errors.Is(last, why) || pairs < 12 {
		t.Errorf("%d pairs, the last with %v", pairs, last)
	}
}

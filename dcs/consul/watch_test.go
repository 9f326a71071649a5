package consul

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
)

func newWatch() *watch {
	return &watch{s: &Store{}, dir: "/d", publish: func(dcs.Snapshot) {}}
}

// What the answer to a blocking query is worth.
func TestIndexRules(t *testing.T) {
	for name, c := range map[string]struct {
		known, answered uint64
		had, has        int // entries
		want            bool
	}{
		"a change":                           {10, 11, 1, 1, true},
		"the time ran out":                   {10, 10, 1, 1, false},
		"the index went back":                {10, 4, 1, 1, false},
		"what was deleted is forgotten":      {10, 9, 1, 1, false},
		"the store was replaced, and empty":  {10, 1, 1, 0, false},
		"the last key went":                  {10, 11, 1, 0, false},
		"something elsewhere, nothing here":  {10, 11, 0, 0, true},
		"the first key":                      {10, 11, 0, 1, true},
		"an agent that says nothing (index)": {1, 1, 1, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWatch()
			w.accept(content{at: time.Now(), index: c.known, entries: entries(c.had)})
			if got := w.believable(content{index: c.answered, entries: entries(c.has)}); got != c.want {
				t.Errorf("believable: %v", got)
			}
		})
	}
}

func entries(n int) []dcs.Entry {
	var all []dcs.Entry
	for i := range n {
		all = append(all, dcs.Entry{Key: fmt.Sprint("/d/", i), Version: dcs.Version{Created: 1, Modified: 2}})
	}
	return all
}

// A refusal counts when it lasts, and not while other trouble comes between.
func TestRefusalThatLasts(t *testing.T) {
	w, now := newWatch(), time.Now()
	for _, step := range []struct {
		err  error
		at   time.Duration // of the question
		want bool
	}{
		{errDenied, 0, false},
		{fmt.Errorf("again: %w", errDenied), refusedFor - time.Second, false},
		{errors.New("something else"), refusedFor + time.Second, false},
		{errDenied, refusedFor, false},
		{errDenied, refusedFor + time.Second, true},
	} {
		if got := w.refused(step.err, now.Add(step.at)); got != step.want {
			t.Errorf("%v after %v: %v", step.err, step.at, got)
		}
	}
}

// model is a directory in Consul, by its rules: the index of a list is the highest of its keys and of those that were
// deleted, until Consul forgets these.
type model struct {
	raft  uint64 // grows with everything
	dead  uint64 // of the last deletion that is not forgotten
	keys  map[string]dcs.Version
	saved *model
}

func (m *model) list() content {
	c := content{at: time.Now(), index: m.dead}
	for k, v := range m.keys {
		c.entries = append(c.entries, dcs.Entry{Key: k, Version: v})
		c.index = max(c.index, v.Modified)
	}
	if c.index == 0 {
		c.index = max(1, m.raft)
	}
	return c
}

// step makes something happen, and reports whether the store was replaced.
func (m *model) step() bool {
	m.raft++
	key := string("/d/" + string(rune('a'+rand.N(4))))
	switch rand.N(12) {
	case 0, 1, 2:
		delete(m.keys, key)
		m.dead = m.raft
	case 3:
		m.dead = 0
	case 4:
		m.saved = &model{dead: m.dead, keys: maps.Clone(m.keys)}
	case 5:
		if m.saved != nil {
			m.dead, m.keys = m.saved.dead, maps.Clone(m.saved.keys)
			return true
		}
	default:
		v := m.keys[key]
		if v.Modified = m.raft; v.Created == 0 {
			v.Created = m.raft
		}
		m.keys[key] = v
	}
	return false
}

// Whatever happens between questions and answers: no key goes back unless the store was replaced, what is accepted is
// what the store said, and after the next read the content is the store's. Answers to blocking queries that bring nothing
// new may be as old as they like.
func TestNeverGoesBack(t *testing.T) {
	sequences, accepted, doubted := 100_000, 0, 0
	if testing.Short() {
		sequences /= 10
	}
	for range sequences {
		m, w := model{keys: make(map[string]dcs.Version)}, newWatch()
		past := []content{m.list()}
		replaced, follows := false, false
		accept := func(c content) {
			old := w.snap
			w.accept(c)
			accepted++
			for key := range w.snap.Changed(old) {
				before, _ := old.Get(key)
				if now, ok := w.snap.Get(key); ok && now.Version.Modified < before.Version.Modified && !replaced {
					t.Fatalf("%s went back from %v to %v", key, before.Version, now.Version)
				}
			}
			replaced = false
		}
		for range 10 {
			for range rand.N(3) {
				replaced = m.step() || replaced
				past = append(past, m.list())
			}
			c := past[len(past)-1]
			if !follows {
				accept(c) // the answer to a read
				follows = true
				continue
			}
			if old := past[rand.N(len(past))]; old.index <= w.index {
				c = old
			}
			if follows = w.believable(c); follows {
				accept(c)
			} else {
				doubted++
			}
		}
		accept(m.list())
		left := maps.Clone(m.keys)
		for e := range w.snap.All("/d") {
			if left[e.Key] != e.Version {
				t.Fatalf("%s is at %v, the store has %v", e.Key, e.Version, left[e.Key])
			}
			delete(left, e.Key)
		}
		if len(left) > 0 {
			t.Fatalf("%v are missing", left)
		}
	}
	t.Logf("%d sequences, %d contents accepted, %d answers doubted", sequences, accepted, doubted)
}

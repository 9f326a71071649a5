package main

import (
	"context"
	"errors"
	"iter"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgconvoy/pgconvoy/patroni"
)

// script is a LeaderSource that yields levels which were written down, and says when each was digested.
type script struct {
	levels   []patroni.Leadership
	digested func(i int)
}

var errEnd = errors.New("the script ends")

func (s script) Watch(context.Context) iter.Seq2[patroni.Leadership, error] {
	return func(yield func(patroni.Leadership, error) bool) {
		for i, l := range s.levels {
			if !yield(l, nil) {
				return
			}
			s.digested(i)
		}
		yield(patroni.Leadership{}, errEnd)
	}
}

func level(phase patroni.Phase, member string, timeline uint32, created uint64) patroni.Leadership {
	addr := map[string]string{"n1": "10.0.0.1:5432", "n2": "10.0.0.2:5432", "": "10.0.0.1:5432"}[member]
	return patroni.Leadership{
		Phase: phase, Member: member, Addr: netip.MustParseAddrPort(addr),
		Epoch: patroni.Epoch{SystemID: "7268616322854375442", Timeline: timeline, Created: created},
	}
}

// TestRules: whom the file names after each level.
func TestRules(t *testing.T) {
	steps := []struct {
		level patroni.Leadership
		named string
	}{
		{patroni.Leadership{}, ""},
		{level(patroni.Promoting, "n1", 1, 10), ""},
		{level(patroni.Writable, "n1", 1, 10), "n1"},
		{level(patroni.Vacant, "", 1, 10), "n1"},
		{level(patroni.Elected, "n2", 1, 10), "n1"},
		{level(patroni.Promoting, "n2", 1, 10), "n1"},
		{level(patroni.Writable, "n2", 2, 20), "n2"},
		{level(patroni.Writable, "n1", 1, 10), "n2"},
		{level(patroni.Writable, "n2", 2, 30), "n2"},
	}
	file := filepath.Join(t.TempDir(), "primary.json")
	var levels []patroni.Leadership
	for _, s := range steps {
		levels = append(levels, s.level)
	}
	c := &Controller{File: file, Leaders: script{levels, func(i int) {
		if got := content(t, file).Member; got != steps[i].named {
			l := steps[i].level
			t.Errorf("after level %d (%s %v) the file names %q, want %q", i, l.Member, l.Phase, got, steps[i].named)
		}
	}}}
	if err := c.Run(t.Context()); !errors.Is(err, errEnd) {
		t.Errorf("ended with %v", err)
	}

	// A new controller goes on where the old one was.
	c.Leaders = script{[]patroni.Leadership{level(patroni.Writable, "n1", 1, 10)}, func(int) {
		if got := content(t, file).Member; got != "n2" {
			t.Errorf("after a restart the file names %q", got)
		}
	}}
	if err := c.Run(t.Context()); !errors.Is(err, errEnd) {
		t.Errorf("ended with %v", err)
	}
}

// TestForeign: what the rules do not decide is left to a person.
func TestForeign(t *testing.T) {
	file := filepath.Join(t.TempDir(), "primary.json")
	foreign := level(patroni.Writable, "n2", 9, 90)
	foreign.Epoch.SystemID = "7000000000000000000"
	c := &Controller{File: file, Leaders: script{
		[]patroni.Leadership{level(patroni.Writable, "n1", 1, 10), foreign}, func(int) {},
	}}
	if err := c.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "foreign database") {
		t.Errorf("ended with %v", err)
	}
	if got := content(t, file).Member; got != "n1" {
		t.Errorf("the file names %q", got)
	}
}

func content(t *testing.T, file string) Primary {
	t.Helper()
	p, err := read(file)
	if err != nil {
		t.Error(err)
	}
	return p
}

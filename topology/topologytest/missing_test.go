package topologytest_test

import (
	"strings"
	"testing"

	"github.com/pgconvoy/pgconvoy/topology/local"
	"github.com/pgconvoy/pgconvoy/topology/topologytest"
)

// TestWithoutPrograms: a test is skipped where a program is missing, with its name and the command that installs it; it
// fails where that is asked for.
func TestWithoutPrograms(t *testing.T) {
	o := topologytest.Options{Backend: topologytest.Processes{Binaries: local.Binaries{Envoy: "/nowhere/envoy"}}}
	for required, want := range map[string]string{"": "skipped", "1": "failed"} {
		t.Setenv("PGCONVOY_REQUIRE", required)
		e := apart(t, func(tb testing.TB) { topologytest.Start(tb, o) })
		if e.how != want || !strings.Contains(e.said, "/nowhere/envoy") || !strings.Contains(e.said, "make setup") {
			t.Errorf("PGCONVOY_REQUIRE=%q: %s with %q, want it %s with the program and the command", required, e.how, e.said, want)
		}
	}
}

// TestUnknownStore: a kind of store that no stack runs is refused by name, before a program is looked for or a test skipped.
func TestUnknownStore(t *testing.T) {
	t.Setenv("PGCONVOY_REQUIRE", "")
	for _, kind := range []string{"paper", "etcd"} { // the latter is for a store of the caller's
		o := topologytest.Options{DCS: kind, Backend: topologytest.Processes{Binaries: local.Binaries{Envoy: "/nowhere/envoy"}}}
		shared := topologytest.Shared{Options: o}
		for what, start := range map[string]func(tb testing.TB){
			"Start": func(tb testing.TB) { topologytest.Start(tb, o) }, "Shared": func(tb testing.TB) { shared.Start(tb) },
		} {
			e := apart(t, start)
			if e.how != "failed" || !strings.Contains(e.said, `Options.DCS "`+kind+`"`) || !strings.Contains(e.said, "embedded, consul, zookeeper") {
				t.Errorf("%s: %s with %q, want it failed with the field and the kinds", what, e.how, e.said)
			}
		}
	}
}

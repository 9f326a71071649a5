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

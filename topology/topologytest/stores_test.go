package topologytest_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/pgconvoy/pgconvoy/topology/local"
	"github.com/pgconvoy/pgconvoy/topology/topologytest"
)

// otherStore: what the kit knows of a store that is not etcd.
func otherStore(t *testing.T, s *topologytest.Stack, kind string) {
	t.Helper()
	if d := s.DCS(); d.Kind != kind || len(d.Endpoints) != 3 {
		t.Errorf("the store is %v", d)
	}
	for _, want := range []topologytest.Link{
		{From: "n1/patroni", To: kind + "-1"}, {From: "pgb-1/agent", To: kind + "-3"}, {From: "cp-1", To: kind + "-2"},
	} {
		if !slices.Contains(s.Links(), want) {
			t.Errorf("there is no link %v", want)
		}
	}
	var names []string
	for _, f := range s.Faults() {
		names = append(names, f.Name)
	}
	if !slices.Contains(names, "KillStoreLeader") || !slices.Contains(names, "LoseQuorum") {
		t.Errorf("faults %v", names)
	}
	for what, do := range map[string]func(s *topologytest.Stack){
		"moving the etcd servers' leader": (*topologytest.Stack).MoveStoreLeader, "compacting etcd": (*topologytest.Stack).CompactStore,
	} {
		if e := apart(t, func(tb testing.TB) { do(s.For(tb)) }); e.how != "failed" || !strings.Contains(e.said, what+": the store is "+kind) {
			t.Errorf("%s: %s with %q", what, e.how, e.said)
		}
	}
}

// TestWithoutStore: a test is skipped where the programs of its store are missing, and says what installs those.
func TestWithoutStore(t *testing.T) {
	o := topologytest.Options{DCS: "zookeeper", Backend: topologytest.Processes{Binaries: local.Binaries{ZooKeeper: "/nowhere/zookeeper.jar"}}}
	t.Setenv("PGCONVOY_REQUIRE", "")
	e := apart(t, func(tb testing.TB) { topologytest.Start(tb, o) })
	if e.how != "skipped" || !strings.Contains(e.said, "/nowhere/zookeeper.jar") || !strings.Contains(e.said, "scripts/setup --stores") {
		t.Errorf("%s with %q, want it skipped with the file and the command", e.how, e.said)
	}
}

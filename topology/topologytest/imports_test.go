package topologytest_test

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/pgconvoy/pgconvoy"

// TestImports: what an application imports brings neither test code along, nor servers that it does not run, nor
// handlers on its default mux, over any number of steps.
func TestImports(t *testing.T) {
	tests := []string{
		"testing", "net/http/httptest", module + "/dcs/dcstest", module + "/topology/topologytest",
		"github.com/Shopify/toxiproxy", "github.com/docker", "github.com/moby", "github.com/testcontainers",
	}
	servers := []string{
		"net/http/pprof", "expvar", module + "/dcs/embedded", module + "/topology/local",
		"go.etcd.io/etcd/server", "google.golang.org/grpc/health", "google.golang.org/grpc/reflection",
	}
	grpc := []string{"google.golang.org/grpc", "golang.org/x/net/trace", "go.etcd.io"}
	consul, zookeeper := []string{"github.com/hashicorp"}, []string{"github.com/go-zookeeper"}

	g := imports(t)
	var examples []string
	for _, p := range g.public {
		if name, ok := strings.CutPrefix(p, module); ok && strings.HasPrefix(name, "/examples/") {
			examples = append(examples, name)
		}
	}
	sets := []struct {
		packages  []string
		forbidden []string
	}{
		{
			[]string{"", "/dcs", "/dcs/memory", "/patroni", "/pooler", "/envoyconf", "/topology", "/topology/ledger"},
			slices.Concat(tests, servers, grpc, consul, zookeeper),
		},
		{[]string{"/dcs/etcd", "/envoyconf/xds"}, slices.Concat(tests, servers, consul, zookeeper)},
		{[]string{"/dcs/consul"}, slices.Concat(tests, servers, grpc, zookeeper)},
		{[]string{"/dcs/zookeeper"}, slices.Concat(tests, servers, grpc, consul)},
		{[]string{"/dcs/consul", "/dcs/zookeeper"}, slices.Concat(tests, servers, grpc)},
		// Whoever imports these wants the servers.
		{append(examples, "/dcs/embedded", "/topology/local"), tests},
		// For tests.
		{[]string{"/dcs/dcstest", "/topology/topologytest"}, nil},
	}

	// A logger for go-control-plane's own tests is in an ordinary file of it. Nothing else may lead there.
	const logger = "github.com/envoyproxy/go-control-plane/pkg/log"
	if !slices.Contains(g.edges[logger], "testing") {
		t.Errorf("%s does not import testing any more: take the exception for it out of this test", logger)
	}
	g.edges[logger] = without(g.edges[logger], "testing")

	var known []string
	for _, set := range sets {
		for _, p := range set.packages {
			known = append(known, module+p)
			if !slices.Contains(g.public, module+p) {
				t.Errorf("%s is not there any more", module+p)
			}
			if way := g.way(module+p, set.forbidden); way != nil {
				t.Errorf("%s must not reach %s:\n  %s", way[0], way[len(way)-1], strings.Join(way, "\n  imports "))
			}
		}
	}
	for _, p := range g.public {
		if !slices.Contains(known, p) {
			t.Errorf("%s is in no set of this test: what may it reach?", p)
		}
	}
}

// TestImportsAreSeen: what TestImports forbids is found where it is.
func TestImportsAreSeen(t *testing.T) {
	g := imports(t)
	for _, c := range []struct {
		from, to string
		way      []string // some of it
	}{
		{"/topology/topologytest", "github.com/Shopify/toxiproxy", nil},
		{"/topology/topologytest", "testing", nil},
		{"/topology/topologytest", module + "/topology/local", nil},
		{"/topology/local", "go.etcd.io/etcd/server", []string{module + "/dcs/embedded"}},
		{"/topology/local", "net/http/pprof", []string{module + "/dcs/embedded"}},
		{"/dcs/etcd", "golang.org/x/net/trace", []string{"go.etcd.io/etcd/client/v3", "google.golang.org/grpc"}},
		{"/dcs/dcstest", "testing", nil},
		{"/dcs/consul", "github.com/hashicorp", nil},
		{"/dcs/zookeeper", "github.com/go-zookeeper", nil},
	} {
		way := g.way(module+c.from, []string{c.to})
		if way == nil {
			t.Errorf("%s does reach %s, which was not seen", module+c.from, c.to)
			continue
		}
		if way[0] != module+c.from || !within(way[len(way)-1], c.to) {
			t.Errorf("the way from %s to %s is %v", module+c.from, c.to, way)
		}
		for _, step := range c.way {
			if !slices.Contains(way, step) {
				t.Errorf("the way from %s to %s does not lead over %s: %v", module+c.from, c.to, step, way)
			}
		}
	}
	if way := g.way(module+"/dcs", []string{"testing", "net/http"}); way != nil {
		t.Errorf("dcs reaches nothing of that, but there is a way: %v", way)
	}
	if within("net/httptest", "net/http") {
		t.Error(`"net/httptest" is taken for a part of "net/http"`)
	}
}

// graph is what all packages of the module are built of.
type graph struct {
	edges  map[string][]string // from a package to what it imports
	public []string            // the packages that others can import, and the programs
}

// imports asks the go command, as for a build on this system.
func imports(t *testing.T) graph {
	t.Helper()
	const fields = "-json=ImportPath,Imports,DepOnly"
	list := exec.CommandContext(t.Context(), "go", "list", "-mod=readonly", "-deps", fields, "./...")
	list.Dir = "../.."
	list.Env = append(os.Environ(), "GOPROXY=off")
	out, err := list.Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			t.Fatalf("%v: %v\n%s", list, err, exit.Stderr)
		}
		t.Fatalf("%v: %v", list, err)
	}
	g := graph{edges: map[string][]string{}}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
			DepOnly    bool // not of this module
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		g.edges[p.ImportPath] = without(p.Imports, "C") // the mark of cgo, no package
		if !p.DepOnly && !strings.Contains(p.ImportPath, "/internal/") {
			g.public = append(g.public, p.ImportPath)
		}
	}
	for _, from := range slices.Sorted(maps.Keys(g.edges)) {
		for _, to := range g.edges[from] {
			if _, ok := g.edges[to]; !ok {
				t.Fatalf("%s imports %s, of which nothing more is said: what it reaches would not be seen", from, to)
			}
		}
	}
	return g
}

func without(paths []string, path string) []string {
	return slices.DeleteFunc(slices.Clone(paths), func(p string) bool { return p == path })
}

// way is the shortest one from a package to any of the others, or what is below them; nil: there is none.
func (g graph) way(from string, forbidden []string) []string {
	by := map[string]string{from: ""} // who led there first
	for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
		for _, next := range g.edges[queue[0]] {
			if _, seen := by[next]; seen {
				continue
			}
			by[next] = queue[0]
			queue = append(queue, next)
			if slices.ContainsFunc(forbidden, func(f string) bool { return within(next, f) }) {
				var way []string
				for p := next; p != ""; p = by[p] {
					way = append(way, p)
				}
				slices.Reverse(way)
				return way
			}
		}
	}
	return nil
}

// within reports whether a package is another one, or below it.
func within(p, of string) bool { return p == of || strings.HasPrefix(p, of+"/") }

package topologytest_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgconvoy/pgconvoy/topology/ledger"
	"github.com/pgconvoy/pgconvoy/topology/topologytest"
)

func TestOrdersSurviveFailover(t *testing.T) {
	s := topologytest.Start(t, topologytest.Options{})
	l := s.Write(t, ledger.Load{Writers: 20, Every: 10 * time.Millisecond})
	s.Kill(s.Primary()) // -9
	s.Await(topologytest.Routed)
	if r := l.Stop(); r.Lost > 0 || r.Failed > r.InFlight {
		t.Fatal(r)
	}
}

func TestPoolSurvivesCut(t *testing.T) {
	s := shared.Start(t) // reset, not started anew
	pool, err := pgxpool.New(t.Context(), s.WriteDSN())
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	heal := s.Cut("client", "envoy")
	if pool.Ping(t.Context()) == nil {
		t.Error("the database answers over a link that is cut")
	}
	heal()
	if err := pool.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestDocumentation: the tests that the package's documentation shows are the ones above, which run.
func TestDocumentation(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "doc.go", nil, parser.ParseComments|parser.PackageClauseOnly)
	if err != nil {
		t.Fatal(err)
	}
	here, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	shown := tests(file.Doc)
	if len(shown) == 0 {
		t.Error("the documentation shows no test")
	}
	for _, test := range shown {
		if !strings.Contains(string(here), "\n"+test) {
			t.Errorf("the documentation shows what does not run:\n%s", test)
		}
	}
}

// tests are the test functions in a comment.
func tests(c *ast.CommentGroup) (found []string) {
	var code strings.Builder
	for line := range strings.SplitAfterSeq(c.Text(), "\n") {
		if after, ok := strings.CutPrefix(line, "\t"); ok {
			code.WriteString(after)
			if after == "}\n" {
				found = append(found, code.String())
				code.Reset()
			}
		} else {
			code.Reset()
		}
	}
	return found
}

package dcstest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Each sentence of the contract has a case, and each case proves sentences that there are.
func TestEverySentenceHasACase(t *testing.T) {
	written := sentences(t, "../dcs.go", "../lock.go", "../revoke.go")
	if n := len(written); n < 30 {
		t.Errorf("only %d sentences found", n)
	}
	proved := make(map[string][]string)
	for _, c := range cases() {
		for s := range strings.SplitSeq(c.proves, ", ") {
			if !written[s] {
				t.Errorf("%s proves %q, which is no sentence of the contract", c.name, s)
			}
			proved[s] = append(proved[s], c.name)
		}
	}
	for _, s := range slices.Sorted(maps.Keys(written)) {
		if len(proved[s]) == 0 {
			t.Errorf("no case proves %s", s)
		}
		t.Logf("%s: %s", s, strings.Join(proved[s], ", "))
	}
}

// A case is known by its name; there are at least as many as were promised, also where nothing can be broken.
func TestCasesAreNamed(t *testing.T) {
	names := make(map[string]bool)
	always := 0
	for _, c := range cases() {
		if names[c.name] {
			t.Errorf("two cases %s", c.name)
		}
		names[c.name] = true
		if len(c.needs) == 0 {
			always++
		}
	}
	t.Logf("%d cases, %d of them need no fault", len(names), always)
	if always < 40 || len(names) < 60 {
		t.Error("cases are missing")
	}
}

// sentences returns the numbered ones of doc comments: "Reader 4".
func sentences(t *testing.T, files ...string) map[string]bool {
	t.Helper()
	number := regexp.MustCompile(`(?m)^ +(\d+)\. `)
	found := make(map[string]bool)
	add := func(name string, doc *ast.CommentGroup) {
		if doc == nil {
			return
		}
		for _, m := range number.FindAllStringSubmatch(doc.Text(), -1) {
			found[name+" "+m[1]] = true
		}
	}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				add(d.Name.Name, d.Doc)
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if ts, ok := spec.(*ast.TypeSpec); ok {
						add(ts.Name.Name, d.Doc)
					}
				}
			}
		}
	}
	return found
}

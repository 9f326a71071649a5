package laws

import (
	"flag"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the generated files")

func TestTable(t *testing.T) {
	owner := map[string]int{}
	for i, law := range Table {
		if law.Number != i+1 {
			t.Errorf("law %d is in place %d", law.Number, i+1)
		}
		if law.Title == "" || law.Text == "" || law.Without == "" {
			t.Errorf("law %d says too little", law.Number)
		}
		tests := len(law.Tests)
		for _, g := range law.Guards {
			if other, twice := owner[g.Name]; twice {
				t.Errorf("%s guards law %d and law %d", g.Name, other, law.Number)
			}
			owner[g.Name] = law.Number
			if g.Does == "" || len(g.Tests) == 0 {
				t.Errorf("%s says too little, or has no test", g.Name)
			}
			tests += len(g.Tests)
		}
		if tests == 0 {
			t.Errorf("law %d has no test", law.Number)
		}
	}
}

// TestGuardsInTheCode: every guard in the code is in the table, and every one in the table is in the code.
func TestGuardsInTheCode(t *testing.T) {
	places := guardsInTheCode(t)
	known := map[string]bool{}
	for _, law := range Table {
		for _, g := range law.Guards {
			known[g.Name] = true
			if len(places[g.Name]) == 0 {
				t.Errorf("no code asks whether %s is off", g.Name)
			}
		}
	}
	for name, files := range places {
		if !known[name] {
			t.Errorf("%s in %s is not in the table", name, strings.Join(files, ", "))
		}
	}
}

var asks = regexp.MustCompile(`mutant\.Is\(("([^"]*)")?`)

// guardsInTheCode finds the files that ask for each guard.
func guardsInTheCode(t *testing.T) map[string][]string {
	t.Helper()
	places := map[string][]string{}
	walk(t, ".", func(file string, text []byte) {
		if strings.HasSuffix(file, "_test.go") || strings.HasPrefix(file, "internal/mutant/") || strings.HasPrefix(file, "internal/laws/") {
			return
		}
		for _, m := range asks.FindAllSubmatch(text, -1) {
			name := string(m[2])
			if name == "" {
				t.Errorf("%s asks for a guard whose name is not in the call", file)
				continue
			}
			if !slices.Contains(places[name], file) {
				places[name] = append(places[name], file)
			}
		}
	})
	return places
}

// TestTestsExist: each test of the table is declared in its package, and its last subtest is named there.
func TestTestsExist(t *testing.T) {
	text := map[string]string{} // all tests of a package
	for _, law := range Table {
		tests := slices.Clone(law.Tests)
		for _, g := range law.Guards {
			tests = append(tests, g.Tests...)
		}
		for _, test := range tests {
			if text[test.Package] == "" {
				walk(t, test.Package, func(file string, s []byte) {
					if path.Dir(file) == test.Package && strings.HasSuffix(file, "_test.go") {
						text[test.Package] += string(s)
					}
				})
			}
			name, sub, _ := strings.Cut(test.Name, "/")
			if !strings.Contains(text[test.Package], "\nfunc "+name+"(") ||
				sub != "" && !strings.Contains(text[test.Package], strconv.Quote(path.Base(sub))) {
				t.Errorf("law %d: %s has no %s", law.Number, test.Package, test.Name)
			}
		}
	}
}

// walk reads each Go file below a folder of the module; file is its path in the module.
func walk(t *testing.T, folder string, read func(file string, text []byte)) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(root, filepath.FromSlash(folder)), func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() && (name == "testdata" || len(name) > 2 && name[0] == '.') {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(p) != ".go" {
			return nil
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		file, err := filepath.Rel(root, p)
		if err == nil {
			read(filepath.ToSlash(file), text)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestDocument(t *testing.T) {
	const file = root + "/docs/laws.md"
	places := guardsInTheCode(t)
	for name := range places {
		slices.Sort(places[name])
	}
	want := document(places)
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(file)
	if err != nil || string(have) != want {
		t.Errorf("docs/laws.md is out of date (%v): go test ./internal/laws -run TestDocument -update", err)
	}
}

package laws

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	module = "github.com/pgconvoy/pgconvoy"
	root   = "../.."
)

// TestGuards: with each guard switched off its tests fail, and with all of them on the same tests pass.
func TestGuards(t *testing.T) {
	began := time.Now()
	bin := build(t, "pgconvoy_mutants", packages()...)
	t.Logf("built in %v", time.Since(began).Round(time.Millisecond))
	for _, pkg := range packages() {
		t.Run("none/"+pkg, func(t *testing.T) {
			t.Parallel()
			names := testsOf(pkg)
			r := run(t, bin, pkg, "", names...)
			if r.err != nil {
				t.Errorf("with all guards on: %v\n%s", r.err, r.out)
			}
			for _, name := range names {
				if got := r.verdict(name); got != "PASS" {
					t.Errorf("%s: %q", name, got)
				}
			}
		})
	}
	for _, law := range Table {
		for _, g := range law.Guards {
			for _, test := range g.Tests {
				t.Run(g.Name+"/"+test.Name, func(t *testing.T) {
					t.Parallel()
					r := run(t, bin, test.Package, g.Name, test.Name)
					if _, failed := errors.AsType[*exec.ExitError](r.err); !failed || r.verdict(test.Name) != "FAIL" {
						t.Errorf("%s does not notice that %s is off: %q, %v\n%s", test.Name, g.Name, r.verdict(test.Name), r.err, r.out)
					}
				})
			}
		}
	}
}

// packages are those with tests of guards.
func packages() []string {
	var list []string
	for _, law := range Table {
		for _, g := range law.Guards {
			for _, test := range g.Tests {
				list = append(list, test.Package)
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// testsOf are the tests of guards in a package.
func testsOf(pkg string) []string {
	var list []string
	for _, law := range Table {
		for _, g := range law.Guards {
			for _, test := range g.Tests {
				if test.Package == pkg {
					list = append(list, test.Name)
				}
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// TestOrdinaryBuild: a program that is built without the tag has no switch in it, not even its name.
func TestOrdinaryBuild(t *testing.T) {
	const pkg, name = "internal/record", "law13-newer-records-are-refused"
	for _, tags := range []string{"", "pgconvoy_mutants"} {
		program, err := os.ReadFile(filepath.Join(build(t, tags, pkg), "record.test"))
		if err != nil {
			t.Fatal(err)
		}
		if has := bytes.Contains(program, []byte(name)); has != (tags != "") {
			t.Errorf("with the tags %q the program has the switch: %v", tags, has)
		}
	}
}

// build makes the test programs of packages and returns their directory.
func build(t *testing.T, tags string, packages ...string) string {
	t.Helper()
	dir := t.TempDir()
	args := []string{"test", "-c", "-tags", tags, "-o", dir + string(filepath.Separator)}
	for _, pkg := range packages {
		args = append(args, module+"/"+pkg)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return dir
}

type result struct {
	out []byte
	err error
}

// run runs tests of one package with a guard switched off; empty: none. It fails t when they do not come to an end.
func run(t *testing.T, bin, pkg, guard string, names ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, path.Base(pkg)+".test"), "-test.v", "-test.timeout=2m", "-test.run", pattern(names))
	cmd.Dir = filepath.Join(root, filepath.FromSlash(pkg))
	cmd.Env = append(os.Environ(), "PGCONVOY_MUTANT="+guard)
	cmd.WaitDelay = 5 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if ctx.Err() != nil || bytes.Contains(out.Bytes(), []byte("panic: test timed out")) {
		t.Fatalf("%v did not come to an end: %v\n%s", cmd, err, out.Bytes())
	}
	return result{out.Bytes(), err}
}

// pattern makes the argument of -test.run that means exactly these tests.
func pattern(names []string) string {
	var list []string
	for _, name := range names {
		var parts []string
		for part := range strings.SplitSeq(name, "/") {
			parts = append(parts, "^"+regexp.QuoteMeta(part)+"$")
		}
		list = append(list, strings.Join(parts, "/"))
	}
	return strings.Join(list, "|")
}

// verdict is PASS, FAIL or SKIP; empty: the test did not run to an end.
func (r result) verdict(name string) string {
	m := regexp.MustCompile(`(?m)^\s*--- (PASS|FAIL|SKIP): ` + regexp.QuoteMeta(name) + ` \(`).FindSubmatch(r.out)
	if m == nil {
		return ""
	}
	return string(m[1])
}

// A test that passes, that fails, that is skipped and that is not there are told apart.
func TestVerdict(t *testing.T) {
	r := result{out: []byte("=== RUN   TestA\n--- FAIL: TestA (0.00s)\n    --- PASS: TestA/b (0.00s)\n--- SKIP: TestC (0.00s)\n")}
	for name, want := range map[string]string{"TestA": "FAIL", "TestA/b": "PASS", "TestC": "SKIP", "Test": "", "TestD": ""} {
		if got := r.verdict(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if got, want := pattern([]string{"TestA", "TestB/c.d"}), `^TestA$|^TestB$/^c\.d$`; got != want {
		t.Errorf("pattern %s, want %s", got, want)
	}
	if fmt.Sprint(packages()) == "[]" {
		t.Error("no package has a test of a guard")
	}
}

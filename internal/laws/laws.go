// Package laws says what holds in every stack whatever fails, which code guards it, and which tests notice when a guard
// is gone. docs/laws.md is made of it; its own tests switch off one guard after the other and see those tests fail.
//
// A new guard asks mutant.Is with a name of its own and has its row in the table: without one, or without a test that
// notices, the tests of this package fail.
package laws

// Law is what holds whatever fails.
type Law struct {
	Number  int
	Title   string
	Text    string
	Without string // an outage that somebody had
	Guards  []Guard
	Tests   []Test // further ones: on real servers, or of what cannot be switched off
}

// Guard is code that keeps a law and can be switched off.
type Guard struct {
	Name  string // what mutant.Is is asked
	Does  string
	Tests []Test // quick ones; each of them fails when the guard is off
}

// Test is a test of a package, by its path in the module. A subtest is named as go test -run takes it, "TestA/b".
type Test struct{ Package, Name string }

// in makes the list of tests of one package.
func in(pkg string, names ...string) []Test {
	var tests []Test
	for _, name := range names {
		tests = append(tests, Test{pkg, name})
	}
	return tests
}

// trials are faults of a whole stack under load.
func trials(names ...string) []Test {
	var tests []Test
	for _, name := range names {
		tests = append(tests, Test{"topology/topologytest", "TestMatrix/etcd/" + name})
	}
	return tests
}

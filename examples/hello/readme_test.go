package main

import (
	"os"
	"strings"
	"testing"
)

// TestReadme: the README shows this program, which the build compiles.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	_, program2, _ := strings.Cut(string(program), "\n") // without the comment of the package
	if !strings.Contains(string(readme), "```go\n"+program2+"```\n") {
		t.Error("the program in README.md is not examples/hello/main.go")
	}
}

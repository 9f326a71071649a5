// Package envoytest runs a real Envoy, and PgBouncers that are not real, for the tests of envoyconf.
package envoytest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Binary finds Envoy. Without one the test is skipped, or fails when PGCONVOY_REQUIRE is 1.
func Binary(t testing.TB) string {
	t.Helper()
	for _, dir := range places() {
		p := filepath.Join(dir, "envoy")
		if i, err := os.Stat(p); err == nil && i.Mode().IsRegular() && i.Mode()&0o111 != 0 {
			return p
		}
	}
	if p, err := exec.LookPath("envoy"); err == nil {
		return p
	}
	const reason = "no envoy binary in $PGCONVOY_HOME, /opt/pgconvoy/bin, the user's cache or PATH: run make setup"
	if os.Getenv("PGCONVOY_REQUIRE") == "1" {
		t.Fatal(reason)
	}
	t.Skip(reason)
	return ""
}

func places() []string {
	var dirs []string
	if home := os.Getenv("PGCONVOY_HOME"); home != "" {
		dirs = append(dirs, filepath.Join(home, "bin"), home)
	}
	dirs = append(dirs, "/opt/pgconvoy/bin")
	cache := os.Getenv("XDG_CACHE_HOME")
	if cache == "" {
		if home, err := os.UserHomeDir(); err == nil {
			cache = filepath.Join(home, ".cache")
		}
	}
	if cache != "" {
		dirs = append(dirs, filepath.Join(cache, "pgconvoy", "bin"))
	}
	return dirs
}

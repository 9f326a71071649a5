package dcsserver_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/pgconvoy/pgconvoy/internal/storetest"
)

// TestConsulLongAway: a server that has not run for years starts with its data.
func TestConsulLongAway(t *testing.T) {
	var dir string
	s := storetest.Consul(t, 1, func(c map[string]any) { dir = c["data_dir"].(string) })
	s.Stop(t, 0)
	file := filepath.Join(dir, "server_metadata.json")
	if _, err := os.Stat(file); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(`{"last_seen_unix": 1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Start(t, 0)
	s.Await(t)
}

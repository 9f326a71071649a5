package storetest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/pgconvoy/pgconvoy/internal/dcsserver"
	"github.com/pgconvoy/pgconvoy/internal/proc"
)

// Consul runs n Consul servers and waits until they serve. config changes each one's configuration; nil: nothing to change.
func Consul(t testing.TB, n int, config func(map[string]any)) *Servers {
	t.Helper()
	consul := program(t, "consul")
	s := run(t, n, func(members []dcsserver.Member, i int) (proc.Command, error) {
		return dcsserver.Consul{Program: consul, Members: members, Config: config}.Command(i)
	})
	ask := func(ctx context.Context, i int, path string) ([]byte, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%v%s", s.addrs[i], path), nil)
		if err != nil {
			return nil, err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, err
		}
		defer func() { _ = resp.Body.Close() }()
		b, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNotFound && resp.StatusCode != http.StatusForbidden {
			err = fmt.Errorf("%s: %s", resp.Status, b)
		}
		return b, err
	}
	s.answers = func(ctx context.Context, i int) error {
		_, err := ask(ctx, i, "/v1/kv/pgconvoy?consistent") // 403 with access control: it answers
		return err
	}
	s.leader = func(ctx context.Context, i int) (bool, error) {
		b, err := ask(ctx, i, "/v1/agent/self")
		var self struct {
			Stats struct {
				Consul struct{ Leader string }
			}
		}
		if err == nil {
			err = json.Unmarshal(b, &self)
		}
		return self.Stats.Consul.Leader == "true", err
	}
	s.Await(t)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return s
}

package dcsserver

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"syscall"

	"github.com/pgconvoy/pgconvoy/internal/atomicfile"
	"github.com/pgconvoy/pgconvoy/internal/proc"
)

// Consul is a cluster of Consul servers.
type Consul struct {
	Program string // the consul binary
	Members []Member
	// Config has the last word on each server's configuration; nil: nobody has.
	Config func(map[string]any)
}

// Command writes the configuration of one member and says how to start it.
func (c Consul) Command(i int) (proc.Command, error) {
	m, err := member(c.Members, i)
	if err != nil {
		return proc.Command{}, err
	}
	var others []string
	for _, o := range c.Members {
		if o.Name != m.Name {
			others = append(others, o.Gossip.String())
		}
	}
	config := map[string]any{
		"server": true, "bootstrap_expect": len(c.Members), "retry_join": others, "retry_interval": "1s",
		"node_name": m.Name, "datacenter": "dc1", "data_dir": m.Data(),
		"bind_addr": m.Peer.Addr(), "client_addr": m.Client.Addr().String(),
		"ports": map[string]int{
			"http": int(m.Client.Port()), "server": int(m.Peer.Port()), "serf_lan": int(m.Gossip.Port()),
			"serf_wan": -1, "dns": -1, "grpc": -1, "grpc_tls": -1, "https": -1,
		},
		"performance": map[string]any{"raft_multiplier": 1, "leave_drain_time": "0s"}, // elections in a second
		"connect":     map[string]any{"enabled": false},
		// A client's address may make as many calls as it likes: all watches of this machine come from one.
		"limits":                  map[string]any{"http_max_conns_per_client": 10000},
		"disable_update_check":    true,
		"disable_remote_exec":     true,
		"leave_on_terminate":      false, // a server that stops is expected back
		"skip_leave_on_interrupt": true,
		"server_rejoin_age_max":   "876000h", // however long it was away: by default it refuses to start after a week
		"log_level":               "WARN",
	}
	if c.Config != nil {
		c.Config(config)
	}
	b, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return proc.Command{}, fmt.Errorf("dcsserver: %s: %w", m.Name, err)
	}
	file := filepath.Join(m.Dir, "consul.json")
	if err := atomicfile.Write(file, b, 0o600); err != nil {
		return proc.Command{}, fmt.Errorf("dcsserver: %s: %w", m.Name, err)
	}
	cmd := m.command(c.Program, "agent", "-config-file", file)
	cmd.Stop = syscall.SIGTERM
	return cmd, nil
}

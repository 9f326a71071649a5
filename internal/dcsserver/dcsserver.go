// Package dcsserver says how to run the servers of a configuration store as processes: Consul and ZooKeeper. (An etcd
// runs inside a Go process: package dcs/embedded.)
//
// All addresses are loopback ones, without TLS and authentication.
package dcsserver

import (
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"

	"github.com/pgconvoy/pgconvoy/internal/proc"
)

// Member is one server of a cluster. Its addresses stay the same for the life of its data.
type Member struct {
	Name   string         // unique in the cluster, and a host name's label
	Dir    string         // its own folder, which exists; configuration, data and log
	Client netip.AddrPort // for clients: Consul's HTTP, ZooKeeper's clientPort
	Peer   netip.AddrPort // among the servers: Consul's RPC, ZooKeeper's quorum
	Gossip netip.AddrPort // among the servers: Consul's Serf, ZooKeeper's election
}

// Data is the folder of what the server keeps; the rest is written anew at each start.
func (m Member) Data() string { return filepath.Join(m.Dir, "data") }

func (m Member) command(path string, args ...string) proc.Command {
	return proc.Command{Name: m.Name, Path: path, Args: args, Dir: m.Dir, Log: filepath.Join(m.Dir, "server.log")}
}

// member is one of members.
func member(members []Member, i int) (Member, error) {
	if i < 0 || i >= len(members) {
		return Member{}, fmt.Errorf("dcsserver: member %d of %d", i, len(members))
	}
	return members[i], nil
}

func sorted(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

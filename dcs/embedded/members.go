package embedded

import (
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// timing is how often a leader is heard, and after what silence another is elected. The latter also bounds the shortest
// lease from below, here to one second.
type timing struct{ heartbeat, election time.Duration }

func (c Config) timing() timing {
	if len(c.Peers) == 0 {
		// It needs no patience with others, and elects itself within twice the election timeout.
		return timing{20 * time.Millisecond, 100 * time.Millisecond}
	}
	// A busy machine may let a member wait for some hundred milliseconds without anything being wrong with it.
	return timing{50 * time.Millisecond, 500 * time.Millisecond}
}

// nameEnds end a member's name where etcd lists them.
const nameEnds = "=,"

func (c Config) validate() error {
	if strings.ContainsAny(c.Name, nameEnds) {
		return fmt.Errorf("Name: %q holds one of %q", c.Name, nameEnds)
	}
	if len(c.Peers) == 0 {
		return nil
	}
	names := slices.Sorted(maps.Keys(c.Peers))
	if _, ok := c.Peers[c.Name]; !ok {
		return fmt.Errorf("Name: %q is not one of Peers, which are %s", c.Name, strings.Join(names, ", "))
	}
	taken := make(map[netip.AddrPort]string)
	for _, name := range names {
		addr := c.Peers[name]
		if name == "" || strings.ContainsAny(name, nameEnds) {
			return fmt.Errorf("Peers: %q cannot be a member's name: it is empty or holds one of %q", name, nameEnds)
		}
		if !addr.IsValid() || addr.Port() == 0 {
			return fmt.Errorf("Peers: the address of %s is %v; it needs an IP address and a port", name, addr)
		}
		if other, ok := taken[addr]; ok {
			return fmt.Errorf("Peers: %s and %s have the same address %v", other, name, addr)
		}
		taken[addr] = name
	}
	return nil
}

// members says who the members are and how they hear each other. What a member with data knows of that is in its data.
func (c Config) members(e *embed.Config) {
	t := c.timing()
	e.TickMs, e.ElectionMs = uint(t.heartbeat.Milliseconds()), uint(t.election.Milliseconds())
	e.Name = c.Name
	e.ListenPeerUrls = nil // see peers
	all := c.Peers
	if len(all) == 0 {
		// The address is in the member list and never dialled: there is one node, and it listens for none.
		all = map[string]netip.AddrPort{c.Name: netip.MustParseAddrPort("127.0.0.1:2380")}
	}
	e.AdvertisePeerUrls = []url.URL{{Scheme: "http", Host: all[c.Name].String()}}
	var cluster []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		cluster = append(cluster, name+"=http://"+all[name].String())
	}
	e.InitialCluster = strings.Join(cluster, ",")
}

// alone reminds of what a member that does not answer most likely lacks.
func (c Config) alone() string {
	if len(c.Peers) == 0 {
		return ""
	}
	return fmt.Sprintf(" (%s answers when a majority of its %d members runs)", c.Name, len(c.Peers))
}

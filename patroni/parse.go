package patroni

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// Parse decodes the snapshot of a cluster's directory; of a Citus cluster it is one group's, "/service/demo/0". Unknown
// fields are ignored, and what Patroni itself would not understand counts as absent, as it does for Patroni. The error
// is for a path that cannot be one.
func Parse(path string, s dcs.Snapshot) (Cluster, error) {
	if err := dcs.CheckKey("path", path); err != nil {
		return Cluster{}, err
	}
	c := newCluster(path)
	c.At, c.Stale = s.At, s.Stale
	c.Gone = s.Known()
	for e := range s.All(path) {
		if name := e.Key[len(path)+1:]; isKey(name) {
			c.set(name, e, s)
			c.Gone = false
		}
	}
	return c, nil
}

// newCluster is a cluster without keys.
func newCluster(path string) Cluster { return Cluster{Path: path, Config: parseConfig(nil)} }

// isKey reports whether Patroni has a key of that name in a cluster's directory.
func isKey(name string) bool {
	switch name {
	case "initialize", "leader", "config", "sync", "failover", "history", "status", "optime/leader", "failsafe":
		return true
	}
	member, ok := strings.CutPrefix(name, "members/")
	return ok && !strings.Contains(member, "/")
}

// set decodes the key of that name from its entry, the zero one if it was removed. s is the content that it is from.
func (c *Cluster) set(name string, e dcs.Entry, s dcs.Snapshot) {
	switch name {
	case "initialize":
		c.SystemID = string(e.Value)
	case "leader":
		c.Leader, c.LeaderVersion = string(e.Value), e.Version
	case "config":
		c.Config = parseConfig(e.Value)
	case "sync":
		c.Sync = parseSync(e.Value)
	case "failover":
		c.Failover, c.FailoverVersion = parseFailover(e.Value), e.Version
	case "history":
		c.History = parseHistory(e.Value)
	case "status", "optime/leader":
		status, _ := s.Get(c.Path + "/status")
		legacy, _ := s.Get(c.Path + "/optime/leader")
		c.Optime = parseOptime(status.Value, legacy.Value)
	case "failsafe": // not of use here
	default:
		c.setMember(strings.TrimPrefix(name, "members/"), e)
	}
}

func (c *Cluster) setMember(name string, e dcs.Entry) {
	i, there := slices.BinarySearchFunc(c.Members, name, func(m Member, name string) int { return strings.Compare(m.Name, name) })
	switch removed := e.Key == ""; {
	case removed && there:
		c.Members = slices.Delete(c.Members, i, i+1)
	case removed:
	case there:
		c.Members[i] = parseMember(name, e.Value)
	default:
		c.Members = slices.Insert(c.Members, i, parseMember(name, e.Value))
	}
}

// String is one line: who leads, and the members with state and role.
func (c Cluster) String() string {
	var b strings.Builder
	leader := c.Leader
	if leader == "" {
		leader = "nobody"
	}
	fmt.Fprintf(&b, "%s: leader %s", c.Path, leader)
	for _, m := range c.Members {
		fmt.Fprintf(&b, ", %s %s %s", m.Name, m.Role, m.State)
	}
	return b.String()
}

// Names returns the members' names, sorted.
func (c Cluster) Names() []string {
	names := make([]string, len(c.Members))
	for i, m := range c.Members {
		names[i] = m.Name
	}
	return names
}

package patroni

import (
	"fmt"
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
	c := Cluster{Path: path, At: s.At, Stale: s.Stale}
	value := func(key string) []byte {
		e, _ := s.Get(path + "/" + key)
		return e.Value
	}
	c.SystemID = string(value("initialize"))
	if e, ok := s.Get(path + "/leader"); ok {
		c.Leader, c.LeaderVersion = string(e.Value), e.Version
	}
	c.Config = parseConfig(value("config"))
	c.Sync = parseSync(value("sync"))
	c.Failover = parseFailover(value("failover"))
	c.History = parseHistory(value("history"))
	c.Optime = parseOptime(value("status"), value("optime/leader"))

	dir := path + "/members"
	for e := range s.All(dir) {
		name := e.Key[len(dir)+1:]
		if strings.Contains(name, "/") {
			continue // not a member by Patroni's own rule
		}
		c.Members = append(c.Members, parseMember(name, e.Value))
	}
	return c, nil
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

package dcsserver

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/pgconvoy/pgconvoy/internal/atomicfile"
	"github.com/pgconvoy/pgconvoy/internal/proc"
)

// ZooKeeper is an ensemble of ZooKeeper servers.
type ZooKeeper struct {
	Java      string // the java program
	ClassPath string // where ZooKeeper's own and its libraries' jars are
	Members   []Member
	TickTime  int // milliseconds; sessions last from 2 to 20 ticks. 0: 500, which lets a session be as short as a second
	// Config has the last word on each server's settings; nil: nobody has.
	Config func(map[string]string)
}

// Command writes the configuration of one member and says how to start it.
func (z ZooKeeper) Command(i int) (proc.Command, error) {
	m, err := member(z.Members, i)
	if err != nil {
		return proc.Command{}, err
	}
	tick := z.TickTime
	if tick == 0 {
		tick = 500
	}
	data := m.Data()
	config := map[string]string{
		"tickTime": strconv.Itoa(tick), "initLimit": "40", "syncLimit": "6", "dataDir": data,
		"clientPort": strconv.Itoa(int(m.Client.Port())), "clientPortAddress": m.Client.Addr().String(),
		"maxSessionTimeout": "60000", // Patroni asks for its ttl
		"maxClientCnxns":    "0", "admin.enableServer": "false", "4lw.commands.whitelist": "srvr,ruok,cons,wchs,mntr",
		"autopurge.purgeInterval": "0",
	}
	if len(z.Members) > 1 {
		for i, o := range z.Members {
			config["server."+strconv.Itoa(i+1)] = fmt.Sprintf("%s:%d:%d", o.Peer.Addr(), o.Peer.Port(), o.Gossip.Port())
		}
	}
	if z.Config != nil {
		z.Config(config)
	}
	var text strings.Builder
	for _, key := range sorted(config) {
		fmt.Fprintf(&text, "%s=%s\n", key, config[key])
	}
	file := filepath.Join(m.Dir, "zoo.cfg")
	err = os.MkdirAll(data, 0o755)
	if err == nil {
		err = atomicfile.Write(file, []byte(text.String()), 0o600)
	}
	if err == nil {
		err = atomicfile.Write(filepath.Join(data, "myid"), []byte(strconv.Itoa(i+1)), 0o644)
	}
	if err != nil {
		return proc.Command{}, fmt.Errorf("dcsserver: %s: %w", m.Name, err)
	}
	cmd := m.command(z.Java,
		"-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-XX:-UsePerfData", // a quick start
		"-cp", z.ClassPath, "org.apache.zookeeper.server.quorum.QuorumPeerMain", file)
	cmd.Stop = syscall.SIGTERM
	return cmd, nil
}

// ZooKeeperJar is where Debian's package has ZooKeeper; the jar names its libraries itself.
const ZooKeeperJar = "/usr/share/java/zookeeper.jar"

package local

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/pgconvoy/pgconvoy/internal/dcsserver"
	"github.com/pgconvoy/pgconvoy/internal/proc"
)

// member is one server of the stack's own store.
type member struct {
	name   string
	Kind   string         `json:"kind"`
	Client netip.AddrPort `json:"client"`
	Peer   netip.AddrPort `json:"peer"`
	Gossip netip.AddrPort `json:"gossip,omitzero"` // of Consul's and ZooKeeper's servers
}

// members chooses the addresses of the store's servers. They find each other's in their data, so a folder keeps its own.
func (f *folder) members(d DCS, n int, p *ports) ([]member, error) {
	file := filepath.Join(f.dir, "members.json")
	b, err := os.ReadFile(file)
	var members []member
	switch {
	case errors.Is(err, fs.ErrNotExist):
		members = slices.Repeat([]member{{Kind: d.Kind}}, n)
	case err != nil:
		return nil, fmt.Errorf("local: Dir: %w", err)
	default:
		if err := json.Unmarshal(b, &members); err != nil {
			return nil, fmt.Errorf("local: Dir: %s: %w", file, err)
		}
	}
	for i := range members {
		m := &members[i]
		if m.Kind = cmp.Or(m.Kind, embeddedKind); m.Kind != d.Kind {
			return nil, fmt.Errorf("local: Dir %s holds the data of a store of kind %s, Runner.DCS.Kind asks for %s; give another folder", f.dir, m.Kind, d.Kind)
		}
	}
	if len(members) != n {
		return nil, fmt.Errorf("local: Dir %s holds the data of %d servers of the store, Runner.Members asks for %d; give another folder", f.dir, len(members), n)
	}
	for i := range members {
		m := &members[i]
		m.name = d.server(i)
		addrs := []*netip.AddrPort{&m.Client, &m.Peer}
		if d.Kind != embeddedKind {
			addrs = append(addrs, &m.Gossip)
		}
		for _, a := range addrs {
			if a.IsValid() {
				if err := p.take(*a); err != nil {
					return nil, fmt.Errorf("local: Dir %s: the address %v of %s cannot be used: %w", f.dir, a, m.name, err)
				}
			} else if *a, err = p.free(loopback(0)); err != nil {
				return nil, err
			}
		}
	}
	if b, err = json.Marshal(members); err != nil {
		return nil, err
	}
	return members, f.keep(file, b)
}

// startMembers starts the servers of the stack's own store.
func (s *Stack) startMembers(ctx context.Context) error {
	if s.kind.Kind == embeddedKind {
		return s.startEtcd(ctx)
	}
	servers := make([]dcsserver.Member, len(s.members))
	for i, m := range s.members {
		servers[i] = dcsserver.Member{Name: m.name, Dir: filepath.Join(s.folder.dir, m.name), Client: m.Client, Peer: m.Peer, Gossip: m.Gossip}
		if err := os.MkdirAll(servers[i].Dir, 0o755); err != nil {
			return fmt.Errorf("local: %s: %w", m.name, err)
		}
	}
	for i, m := range s.members {
		c, err := s.server(servers, i)
		if err != nil {
			return fmt.Errorf("local: %w", err)
		}
		c.Log = s.logFile(m.name)
		if s.folder.throwaway {
			c.Stop = syscall.SIGKILL // nobody comes back to what an orderly end would keep
		}
		s.supervise(ctx, &s.last, c)
	}
	return nil
}

// server says how to start a server of Consul or ZooKeeper.
func (s *Stack) server(servers []dcsserver.Member, i int) (proc.Command, error) {
	if s.kind.Kind == consulKind {
		return dcsserver.Consul{Program: s.bin.Consul, Members: servers}.Command(i)
	}
	return dcsserver.ZooKeeper{
		Java: s.bin.Java, ClassPath: s.bin.ZooKeeper, Members: servers,
		Config: func(c map[string]string) {
			c["maxSessionTimeout"] = strconv.Itoa(1000 * max(60, s.spec.Timing.TTL)) // Patroni asks for its ttl
			if s.folder.throwaway {
				c["forceSync"] = "no"
			}
		},
	}.Command(i)
}

// await waits until the server accepts connections.
func (m member) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		err := m.listens(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (m member) listens(ctx context.Context) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", m.Client.String())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // nothing is lost with it
	if m.Kind != zookeeperKind {
		return nil
	}
	// A ZooKeeper accepts connections before it serves, and forgets what it is sent meanwhile.
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "srvr"); err != nil {
		return err
	}
	b, err := io.ReadAll(conn)
	if err == nil && !bytes.Contains(b, []byte("\nMode: ")) {
		err = fmt.Errorf("%s", bytes.TrimSpace(b))
	}
	return err
}

// startEtcd starts etcd servers, which are roles.
func (s *Stack) startEtcd(ctx context.Context) error {
	peers := map[string]netip.AddrPort{}
	for _, m := range s.members {
		peers[m.name] = m.Peer
	}
	for _, m := range s.members {
		err := s.startRole(ctx, &s.last, role{
			Component: m.name,
			Member: &memberRole{
				Name: m.name, Dir: filepath.Join(s.folder.dir, m.name), Listen: m.Client, Peers: peers,
				NoSync: s.folder.throwaway, Log: s.logFile(m.name),
			},
		})
		if err != nil {
			return err
		}
	}
	return nil
}

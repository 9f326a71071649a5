package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/etcd"
	"github.com/pgconvoy/pgconvoy/internal/record"
)

// store is where a stack's state is.
type store struct {
	kind      string   // "embedded" or "etcd"
	endpoints []string // URLs
	store     dcs.Store
	wiring    *wiring
	close     func() error
}

// from are the endpoints as a component reaches them: URLs.
func (s *store) from(component string) ([]string, error) {
	hosts, err := hostsOf(s.endpoints)
	if err != nil {
		if s.wiring.via != nil {
			return nil, fmt.Errorf("local: Runner.Via: etcd: %w", err)
		}
		return s.endpoints, nil // names are fine where nobody stands between
	}
	var endpoints []string
	for i, h := range hosts {
		through, err := s.wiring.reach(component, memberName(i), h)
		if err != nil {
			return nil, err
		}
		endpoints = append(endpoints, "http://"+through.String())
	}
	return endpoints, nil
}

// member is one etcd server of the stack.
type member struct {
	name   string
	Client netip.AddrPort `json:"client"`
	Peer   netip.AddrPort `json:"peer"`
}

func memberName(i int) string { return fmt.Sprintf("etcd-%d", i+1) }

// members chooses the addresses of the etcd servers. They find each other's in their data, so a folder keeps its own.
func (f *folder) members(n int, p *ports) ([]member, error) {
	file := filepath.Join(f.dir, "members.json")
	b, err := os.ReadFile(file)
	var members []member
	switch {
	case errors.Is(err, fs.ErrNotExist):
		members = make([]member, n)
	case err != nil:
		return nil, fmt.Errorf("local: Dir: %w", err)
	default:
		if err := json.Unmarshal(b, &members); err != nil {
			return nil, fmt.Errorf("local: Dir: %s: %w", file, err)
		}
	}
	if len(members) != n {
		return nil, fmt.Errorf("local: Dir %s holds the data of %d etcd servers, Runner.Members asks for %d; give another folder", f.dir, len(members), n)
	}
	for i := range members {
		m := &members[i]
		m.name = memberName(i)
		for _, a := range []*netip.AddrPort{&m.Client, &m.Peer} {
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

func (s *Stack) startMembers(ctx context.Context) error {
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

// openStore connects to the stack's own etcd, or to the caller's. There a throwaway stack takes a path that nobody uses,
// and removes it at the end.
func (s *Stack) openStore(ctx context.Context) (*store, error) {
	st := &store{kind: "etcd", wiring: &s.wiring}
	for _, e := range s.etcd {
		st.endpoints = append(st.endpoints, "http://"+strings.TrimPrefix(e, "http://"))
	}
	for _, m := range s.members {
		st.kind, st.endpoints = "embedded", append(st.endpoints, "http://"+m.Client.String())
	}
	for _, m := range s.members { // a client that is refused once waits for a second
		if err := listening(ctx, m.Client); err != nil {
			return nil, fmt.Errorf("local: %s does not start (its log is in %s): %w", m.name, s.logs, err)
		}
	}
	client, err := connectEtcd(st.endpoints)
	if err != nil {
		return nil, fmt.Errorf("local: Runner.Etcd: %w", err)
	}
	st.store, st.close = etcd.New(client), client.Close
	snap, err := s.firstRead(ctx, st.store)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("local: etcd %s does not answer: %w", strings.Join(st.endpoints, ","), err), client.Close())
	}
	if len(s.etcd) == 0 || !s.folder.throwaway {
		return st, nil
	}
	for e := range snap.All(s.spec.Path) {
		return nil, errors.Join(fmt.Errorf("local: Spec.Path %s is in use in the etcd at %s (%s is there); give another path, or the Dir of that cluster",
			s.spec.Path, strings.Join(s.etcd, ","), e.Key), client.Close())
	}
	st.close = func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_, err1 := client.Delete(ctx, dcs.Prefix(s.spec.Path), clientv3.WithPrefix())
		_, err2 := client.Delete(ctx, dcs.Prefix(record.Dir(s.spec.Path)), clientv3.WithPrefix())
		return errors.Join(err1, err2, client.Close())
	}
	return st, nil
}

// firstRead waits for our own servers, which have just been started.
func (s *Stack) firstRead(ctx context.Context, store dcs.Store) (dcs.Snapshot, error) {
	limit := 5 * time.Second
	if len(s.members) > 0 {
		limit = 30 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		snap, err := store.Get(ctx, s.spec.Path)
		if err == nil || len(s.members) == 0 {
			return snap, err
		}
		select {
		case <-ctx.Done():
			return snap, errors.Join(context.Cause(ctx), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// listening waits until somebody accepts connections.
func listening(ctx context.Context, addr netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr.String())
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

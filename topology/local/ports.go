package local

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"

	"github.com/pgconvoy/pgconvoy/topology"
)

// choose gives each zero address of the spec one of this machine and refuses those that are taken. The nodes are
// at 127.0.0.1, 127.0.0.2 and so on with one common port, since PgBouncer knows one port for all hosts of a list.
func (p *ports) choose(s topology.Spec) (topology.Spec, error) {
	s.Nodes, s.Poolers = append([]topology.Node(nil), s.Nodes...), append([]topology.PgBouncer(nil), s.Poolers...)
	var errs []error
	given := func(field string, a netip.AddrPort) {
		if a.IsValid() {
			if err := p.take(a); err != nil {
				errs = append(errs, fmt.Errorf("local: Spec.%s %v cannot be used: %w; give another one, or none for a free one", field, a, err))
			}
		}
	}
	for i, n := range s.Nodes {
		given(fmt.Sprintf("Nodes[%d].Postgres", i), n.Postgres)
		given(fmt.Sprintf("Nodes[%d].API", i), n.API)
	}
	for i, b := range s.Poolers {
		given(fmt.Sprintf("Poolers[%d].Listen", i), b.Listen)
	}
	given("Envoy.Write", s.Envoy.Write)
	given("Envoy.Read", s.Envoy.Read)
	given("Envoy.Admin", s.Envoy.Admin)
	if err := errors.Join(errs...); err != nil {
		return s, err
	}

	var open []*netip.AddrPort
	var common uint16
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if n.Postgres.IsValid() {
			common = n.Postgres.Port()
		} else {
			n.Postgres = netip.AddrPortFrom(loopback(i), 0)
			open = append(open, &n.Postgres)
		}
	}
	if err := p.common(open, common); err != nil {
		return s, err
	}
	free := []*netip.AddrPort{&s.Envoy.Write, &s.Envoy.Read, &s.Envoy.Admin}
	for i := range s.Nodes {
		free = append(free, &s.Nodes[i].API)
	}
	for i := range s.Poolers {
		free = append(free, &s.Poolers[i].Listen)
	}
	for _, a := range free {
		if a.IsValid() {
			continue
		}
		found, err := p.free(loopback(0))
		if err != nil {
			return s, err
		}
		*a = found
	}
	return s, nil
}

// loopback is the address of the i-th node. All of 127.0.0.0/8 is this machine.
func loopback(i int) netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 0, byte(1 + i)}) }

// ports knows which addresses are spoken for.
type ports struct{ used map[netip.AddrPort]bool }

func newPorts() *ports { return &ports{used: map[netip.AddrPort]bool{}} }

// Ports are looked for below the range that the kernel takes client ports from: there, a port that is free now may be
// some connection's own before its server has started.
const lowest, highest = 20000, 32000

func (p *ports) take(a netip.AddrPort) error {
	if p.used[a] {
		return errors.New("it is used twice")
	}
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(a))
	if err != nil {
		return err
	}
	p.used[a] = true
	return l.Close()
}

func (p *ports) free(ip netip.Addr) (netip.AddrPort, error) {
	a := netip.AddrPortFrom(ip, 0)
	err := p.common([]*netip.AddrPort{&a}, 0)
	return a, err
}

// common finds one port that is free on all addresses; zero: any.
func (p *ports) common(addrs []*netip.AddrPort, port uint16) error {
	var last error
	for range 200 {
		try := port
		if try == 0 {
			try = uint16(lowest + rand.IntN(highest-lowest))
		}
		if last = p.all(addrs, try); last == nil {
			return nil
		}
		if port != 0 {
			break
		}
	}
	return fmt.Errorf("local: no free port was found: %w", last)
}

func (p *ports) all(addrs []*netip.AddrPort, port uint16) error {
	for _, a := range addrs {
		if err := p.take(netip.AddrPortFrom(a.Addr(), port)); err != nil {
			return err
		}
	}
	for _, a := range addrs {
		*a = netip.AddrPortFrom(a.Addr(), port)
	}
	return nil
}

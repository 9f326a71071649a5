package storetest

import (
	"context"
	"net/netip"
	"testing"

	"github.com/pgconvoy/pgconvoy/dcs/dcstest"
)

// Paths are one client's ways to the servers of a store, a proxy to each.
type Paths []*Proxy

// Paths are those of one more client, until the test ends.
func (s *Servers) Paths(t testing.TB) Paths {
	t.Helper()
	p := make(Paths, s.Len())
	for i, addr := range s.addrs {
		p[i] = NewProxy(t, addr)
	}
	return p
}

// Addrs are where the client connects to, in the servers' order.
func (p Paths) Addrs() []netip.AddrPort {
	addrs := make([]netip.AddrPort, len(p))
	for i, proxy := range p {
		addrs[i] = proxy.Addr()
	}
	return addrs
}

// Cut is [Proxy.Cut] of each.
func (p Paths) Cut() (heal func()) { return p.each((*Proxy).Cut) }

// Mute is [Proxy.Mute] of each.
func (p Paths) Mute() (heal func()) { return p.each((*Proxy).Mute) }

// Halt is [Proxy.Halt] of each.
func (p Paths) Halt() (heal func()) { return p.each((*Proxy).Halt) }

func (p Paths) each(fault func(*Proxy) (heal func())) (heal func()) {
	heals := make([]func(), len(p))
	for i, proxy := range p {
		heals[i] = fault(proxy)
	}
	return func() {
		for _, heal := range heals {
			heal()
		}
	}
}

// Faults are those of a client that connects through p, and of the servers. Expire and Forget are nil where the servers
// have no way to do it.
func (s *Servers) Faults(p Paths) dcstest.Faults {
	path := func(fault func() (heal func())) func(*testing.T) func() {
		return func(*testing.T) func() { return fault() }
	}
	f := dcstest.Faults{
		Cut:        path(p.Cut),
		Mute:       path(p.Mute),
		Halt:       path(p.Halt),
		Restart:    func(t *testing.T) { t.Helper(); s.Restart(t) },
		KillLeader: func(t *testing.T) func() { t.Helper(); return s.KillLeader(t) },
		LoseQuorum: func(t *testing.T) func() { t.Helper(); return s.LoseMajority(t) },
		Backup:     func(t *testing.T) func() { t.Helper(); return s.Backup(t) },
	}
	if s.expire != nil {
		f.Expire = func(t *testing.T, key string) {
			t.Helper()
			s.must(t, "expire "+key, func(ctx context.Context) error { return s.expire(ctx, key) })
		}
	}
	if s.forget != nil {
		f.Forget = func(t *testing.T) { t.Helper(); s.must(t, "forget", s.forget) }
	}
	return f
}

func (s *Servers) must(t *testing.T, what string, f func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), Within)
	defer cancel()
	if err := f(ctx); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

package patroni

import (
	"fmt"
	"net/netip"
)

// Addr is the address of the member's PostgreSQL; an error where the member has a host name.
func (m Member) Addr() (netip.AddrPort, error) {
	a, ok := literal(m.Host)
	if !ok {
		return a, fmt.Errorf("patroni: the address %q of %s is not literal", m.Host, m.Name)
	}
	return a, nil
}

// literal parses host:port where host is an IP address.
func literal(hostport string) (netip.AddrPort, bool) {
	a, err := netip.ParseAddrPort(hostport)
	return a, err == nil
}

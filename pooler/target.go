package pooler

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Target is where a pooler sends its server connections. The zero value means: refuse. A refusing pooler is pointed
// at 127.0.0.1 port 1, where nothing listens, so that clients get an error at once instead of a stale answer.
type Target struct {
	// Hosts are literal addresses. Several (for a read service) are used in turn and need one common port, since
	// PgBouncer knows one port per database. Empty: refuse.
	Hosts []netip.AddrPort
	// Mark is the caller's own word for this route (an agent's epoch). It is kept in the same file as the
	// addresses, changes with them in one rename and so survives restarts. At most 512 bytes of printable UTF-8
	// that neither begin nor end with a blank; empty is allowed.
	Mark string
}

// refusing is an address that answers every connection with "connection refused": port 1 (tcpmux) of this machine.
var refusing = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 1)

const maxMark = 512

// Validate reports, with ErrInvalid, the first reason why PgBouncer could not be given this target.
func (t Target) Validate() error {
	_, err := t.normal()
	return err
}

// Refuses reports whether the target names no host: clients are to get an error.
func (t Target) Refuses() bool { return len(t.Hosts) == 0 }

// SameHosts reports whether both targets send connections to the same addresses, in any order.
func (t Target) SameHosts(o Target) bool {
	return slices.Equal(sorted(t.Hosts), sorted(o.Hosts))
}

// String is for people: "10.0.0.1:5432" or "10.0.0.1:5432,10.0.0.2:5432" or "refuse", then the mark.
func (t Target) String() string {
	s := t.hosts()
	if t.Mark != "" {
		s += " (" + t.Mark + ")"
	}
	return s
}

func (t Target) hosts() string {
	if t.Refuses() {
		return "refuse"
	}
	parts := make([]string, len(t.Hosts))
	for i, h := range t.Hosts {
		parts[i] = h.String()
	}
	return strings.Join(parts, ",")
}

// normal returns the target with plain IPv4 for IPv4-mapped addresses, or why it is refused.
func (t Target) normal() (Target, error) {
	hosts := make([]netip.AddrPort, 0, len(t.Hosts))
	for i, h := range t.Hosts {
		h = unmap(h)
		switch {
		case !h.IsValid() || h.Addr().IsUnspecified() || h.Port() == 0:
			return t, fmt.Errorf("%w: Target.Hosts[%d] = %q: want a literal address and a port", ErrInvalid, i, h)
		case h.Addr().Zone() != "":
			return t, fmt.Errorf("%w: Target.Hosts[%d] = %q: PgBouncer takes no address with a zone", ErrInvalid, i, h)
		case h == refusing:
			return t, fmt.Errorf("%w: Target.Hosts[%d] = %q is the refusing address: leave Hosts empty to refuse", ErrInvalid, i, h)
		case h.Port() != unmap(t.Hosts[0]).Port():
			return t, fmt.Errorf("%w: Target.Hosts[%d] = %q: PgBouncer has one port for all hosts of a database, and Hosts[0] has %d", ErrInvalid, i, h, t.Hosts[0].Port())
		}
		hosts = append(hosts, h)
	}
	if err := checkMark(t.Mark); err != nil {
		return t, err
	}
	if len(hosts) == 0 {
		hosts = nil
	}
	return Target{Hosts: hosts, Mark: t.Mark}, nil
}

func checkMark(mark string) error {
	switch {
	case len(mark) > maxMark:
		return fmt.Errorf("%w: Target.Mark has %d bytes, at most %d", ErrInvalid, len(mark), maxMark)
	case strings.TrimSpace(mark) != mark:
		return fmt.Errorf("%w: Target.Mark begins or ends with a blank", ErrInvalid)
	case !utf8.ValidString(mark) || strings.ContainsFunc(mark, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Errorf("%w: Target.Mark has a character that is not printable", ErrInvalid)
	}
	return nil
}

// hostPort is the target in PgBouncer's words.
func (t Target) hostPort() (host, port string) {
	hosts := t.Hosts
	if len(hosts) == 0 {
		hosts = []netip.AddrPort{refusing}
	}
	parts := make([]string, len(hosts))
	for i, h := range hosts {
		parts[i] = h.Addr().String()
	}
	return strings.Join(parts, ","), fmt.Sprint(hosts[0].Port())
}

// has reports whether a server connection to addr is where the target wants it.
func (t Target) has(addr netip.AddrPort) bool { return slices.Contains(t.Hosts, addr) }

// parseHosts is the reverse of hostPort. ok is false for names, sockets and whatever else is not a literal.
func parseHosts(host, port string) (t Target, ok bool) {
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil || p == 0 {
		return Target{}, false
	}
	for part := range strings.SplitSeq(host, ",") {
		addr, err := netip.ParseAddr(part)
		if err != nil {
			return Target{}, false
		}
		t.Hosts = append(t.Hosts, netip.AddrPortFrom(addr.Unmap(), uint16(p)))
	}
	if len(t.Hosts) == 1 && t.Hosts[0] == refusing {
		return Target{}, true
	}
	return t, true
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

func sorted(hosts []netip.AddrPort) []netip.AddrPort {
	s := make([]netip.AddrPort, len(hosts))
	for i, h := range hosts {
		s[i] = unmap(h)
	}
	slices.SortFunc(s, netip.AddrPort.Compare)
	return s
}

// State is what a pooler is doing, read from its console and its file at one time.
type State struct {
	// Version is PgBouncer's, "1.24.1".
	Version string
	// Target is what is live in the running pooler, whatever the file says; its Mark is the file's when the file
	// names the same addresses, otherwise empty. A refusing pooler has no Hosts and Refusing set.
	Target Target
	// Refusing: the pooler is pointed at the refusing address.
	Refusing bool
	// Reason says why Target has no Hosts although the pooler does not refuse, for example that a database still
	// has a host name or that two databases point to different places. A Route cures it. Empty otherwise.
	Reason string
	// File is what the file says. It differs from Target when a Route ended between its rename and its RELOAD, or
	// somebody edited the file; the next RELOAD or restart would make it live. Zero when the file has no one target.
	File Target
	// Held: new transactions wait, in all databases or (by somebody's PAUSE db) in some of those that matter here.
	Held bool
	// Drained: every database that matters is held and no server connection is in use.
	Drained bool
	// Servers counts server connections by address, in any state. Those over Unix sockets count under the zero key.
	Servers map[netip.AddrPort]int
	// Clients counts client connections, console ones apart; Waiting those of them that wait for a server.
	Clients, Waiting int
	// At is when the last of it was read.
	At time.Time
}

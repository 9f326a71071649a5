package topologytest

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Link is the way from one component to another, in the direction in which connections are made.
type Link struct{ From, To string }

// String is "envoy -> pgb-1", for example.
func (l Link) String() string { return l.From + " -> " + l.To }

// Direction is that of data on a link.
type Direction int

// The directions, as seen by who makes the connections.
const (
	Both     Direction = iota
	Forward            // what From says to To
	Backward           // what To answers
)

// String is "both", "forward" or "backward".
func (d Direction) String() string {
	switch d {
	case Both:
		return "both"
	case Forward:
		return "forward"
	case Backward:
		return "backward"
	}
	return fmt.Sprintf("Direction(%d)", int(d))
}

// links are the links of a stack, each through proxies of this process.
type links struct {
	mu     sync.Mutex
	all    map[Link]*link
	ports  map[Link][]port // by From and the role of To: "postgres" of "n1/postgres"
	closed bool
}

// link is one way. It has a proxy for each address at which its end listens: a fault hits all of them.
type link struct {
	proxies []*proxy
	faults  []*condition
	state   atomic.Pointer[condition] // the sum of the faults
}

// condition is what a link suffers.
type condition struct {
	cut     bool
	ways    [2]way        // forward, backward
	changed chan struct{} // of a link's state: closed when another one has taken its place
}

// way is one direction of a condition.
type way struct {
	deaf bool
	slow slow
}

// slow is what delays data. The zero value does not.
type slow struct {
	latency, jitter time.Duration
	rate            int // bytes per second; 0: any
}

func (c *condition) way(d Direction) *way { return &c.ways[d-Forward] }

func newLinks() *links {
	return &links{all: map[Link]*link{}, ports: map[Link][]port{}}
}

// via is the address at which from reaches the component to, which listens at addr now or later: on addr's IP, at
// another port. The proxies of from to all components with one role (the part after the slash) that are on different IPs
// have one port, since PgBouncer knows one port for a list of hosts. Asked again it answers the same.
func (ls *links) via(from, to string, addr netip.AddrPort) (netip.AddrPort, error) {
	switch {
	case from == "" || to == "":
		return netip.AddrPort{}, fmt.Errorf("a link from %q to %q has no name at one end", from, to)
	case !addr.IsValid() || addr.Port() == 0 || addr.Addr().IsUnspecified():
		return netip.AddrPort{}, fmt.Errorf("%v leads nowhere: the link %v needs an IP and a port", addr, Link{from, to})
	}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.closed {
		return netip.AddrPort{}, errClosed
	}
	l := Link{from, to}
	k := ls.all[l]
	if k == nil {
		k = &link{}
		k.state.Store(sum(nil))
	}
	for _, p := range k.proxies {
		if p.upstream == addr {
			return p.addr, nil
		}
	}
	p, err := ls.open(l, &proxy{upstream: addr, state: &k.state})
	if err != nil {
		return netip.AddrPort{}, err
	}
	k.proxies = append(k.proxies, p)
	ls.all[l] = k
	if k.state.Load().cut {
		p.stop()
	}
	return p.addr, nil
}

var errClosed = errors.New("the links are closed: the stack has ended")

// open starts a proxy at a port that fits.
func (ls *links) open(l Link, p *proxy) (*proxy, error) {
	key := l
	if _, role, ok := strings.Cut(l.To, "/"); ok {
		key.To = role
	}
	ip := p.upstream.Addr()
	for _, common := range ls.ports[key] {
		if common.used[ip] {
			continue
		}
		p.addr = netip.AddrPortFrom(ip, common.number)
		if err := p.start(); err != nil {
			return nil, fmt.Errorf("the link %v needs the port that %s has on other addresses: %w", l, key, err)
		}
		common.used[ip] = true
		return p, nil
	}
	var last error
	for range 200 {
		found, err := takePort(uint16(lowestPort + rand.IntN(highestPort-lowestPort)))
		if err != nil {
			last = err
			continue
		}
		p.addr = netip.AddrPortFrom(ip, found.number)
		if last = p.start(); last == nil {
			found.used[ip] = true
			ls.ports[key] = append(ls.ports[key], found)
			return p, nil
		}
		_ = found.mark.Close() // nothing is lost with it
	}
	return nil, fmt.Errorf("no free port was found for the link %v: %w", l, last)
}

// Proxies listen below the range that the kernel takes client ports from, and below that of topology/local, whose
// components have chosen ports at which they do not listen yet.
const lowestPort, highestPort = 10000, 20000

// port is a number that no other stack's proxies take on any address, also while it is closed by a cut.
type port struct {
	number uint16
	mark   *net.UDPConn // at this number; it says nothing
	used   map[netip.Addr]bool
}

func takePort(number uint16) (port, error) {
	mark, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(number)})
	return port{number, mark, map[netip.Addr]bool{}}, err
}

// list returns all links, sorted.
func (ls *links) list() []Link {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return sorted(ls.all)
}

func sorted(all map[Link]*link) []Link {
	return slices.SortedFunc(maps.Keys(all), func(a, b Link) int {
		return strings.Compare(a.From+"\x00"+a.To, b.From+"\x00"+b.To)
	})
}

// close ends all proxies and their connections, with all that runs for them. Undos do nothing afterwards.
func (ls *links) close() error {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.closed = true
	var errs []error
	for _, k := range ls.all {
		for _, p := range k.proxies {
			p.stop()
		}
	}
	for _, ports := range ls.ports {
		for _, p := range ports {
			errs = append(errs, p.mark.Close())
		}
	}
	clear(ls.ports)
	return errors.Join(errs...)
}

// cut resets the connections of a link and refuses new ones, at once. The undo fails when another program has taken a
// port meanwhile.
func (ls *links) cut(l Link) (undo func() error, err error) {
	return ls.inject(l, condition{cut: true})
}

// halfOpen keeps connections open while nothing arrives in a direction, neither data nor the end of a connection. After
// the undo it does arrive, late, as with TCP's retransmissions after a partition. New connections are accepted and hear
// nothing; they reach the other end when Forward is open. Keepalive does not see this fault: the proxies answer it. A
// sender notices when all buffers are full.
func (ls *links) halfOpen(l Link, d Direction) (undo func() error, err error) {
	if d < Both || d > Backward {
		return nil, fmt.Errorf("%v is none of Both, Forward and Backward", d)
	}
	var c condition
	c.way(Forward).deaf = d != Backward
	c.way(Backward).deaf = d != Forward
	return ls.inject(l, c)
}

// delay lets what goes Backward, the answers, arrive later by latency, more or less by at most jitter: a round trip
// takes that much longer, and the order stays. Both are whole milliseconds. Delays of a link add up. The undo lets what
// is under way arrive at once. Connections are made as fast as ever.
func (ls *links) delay(l Link, latency, jitter time.Duration) (undo func() error, err error) {
	switch {
	case latency < time.Millisecond || latency%time.Millisecond != 0:
		return nil, fmt.Errorf("latency %v is not a number of whole milliseconds from 1 on", latency)
	case jitter < 0 || jitter%time.Millisecond != 0 || jitter > latency:
		return nil, fmt.Errorf("jitter %v is not a number of whole milliseconds up to the latency, %v", jitter, latency)
	}
	var c condition
	c.way(Backward).slow = slow{latency: latency, jitter: jitter}
	return ls.inject(l, c)
}

// throttle lets each connection carry at most bytesPerSecond, a multiple of 1000, in each direction. The lowest of
// several counts.
func (ls *links) throttle(l Link, bytesPerSecond int) (undo func() error, err error) {
	if bytesPerSecond < 1000 || bytesPerSecond%1000 != 0 {
		return nil, fmt.Errorf("bytesPerSecond %d is not a multiple of 1000 from 1000 on", bytesPerSecond)
	}
	var c condition
	c.way(Forward).slow.rate, c.way(Backward).slow.rate = bytesPerSecond, bytesPerSecond
	return ls.inject(l, c)
}

// inject adds a fault to those of a link. The undo takes it away, once; called again it says what it said first.
func (ls *links) inject(l Link, c condition) (undo func() error, err error) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.closed {
		return nil, errClosed
	}
	k, ok := ls.all[l]
	if !ok {
		return nil, ls.unknown(l)
	}
	undone := func() error {
		k.faults = slices.DeleteFunc(k.faults, func(f *condition) bool { return f == &c })
		if err := k.apply(); err != nil {
			return fmt.Errorf("%v stays cut: %w", l, err)
		}
		return nil
	}
	k.faults = append(k.faults, &c)
	if k.apply() != nil { // an earlier cut has lost its port
		return nil, undone()
	}
	return sync.OnceValue(func() error {
		ls.mu.Lock()
		defer ls.mu.Unlock()
		if ls.closed {
			return nil
		}
		return undone()
	}), nil
}

// unknown names the links that were perhaps meant: those with the same end, or else all.
func (ls *links) unknown(l Link) error {
	var near, all []string
	for _, other := range sorted(ls.all) {
		all = append(all, other.String())
		if other.From == l.From || other.To == l.To {
			near = append(near, other.String())
		}
	}
	if len(near) == 0 {
		near = all
	}
	if len(near) == 0 {
		return fmt.Errorf("there is no link %v, nor any other", l)
	}
	return fmt.Errorf("there is no link %v, but: %s", l, strings.Join(near, ", "))
}

// apply makes the faults come true, for connections that are there and for new ones.
func (k *link) apply() error {
	now := sum(k.faults)
	old := k.state.Swap(now)
	close(old.changed)
	var errs []error
	for _, p := range k.proxies {
		if now.cut {
			p.stop()
		} else {
			errs = append(errs, p.start())
		}
	}
	return errors.Join(errs...)
}

// sum is the condition of a link with these faults.
func sum(faults []*condition) *condition {
	all := &condition{changed: make(chan struct{})}
	for _, f := range faults {
		all.cut = all.cut || f.cut
		for i, w := range f.ways {
			a := &all.ways[i]
			a.deaf = a.deaf || w.deaf
			a.slow.latency += w.slow.latency
			a.slow.jitter += w.slow.jitter
			if r := w.slow.rate; r > 0 && (a.slow.rate == 0 || r < a.slow.rate) {
				a.slow.rate = r
			}
		}
	}
	return all
}

package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// DCS says what a stack's store is, and where. TLS and credentials are not for stacks of one machine.
type DCS struct {
	// Kind is "embedded" (etcd servers that the stack runs), "etcd", "consul" or "zookeeper". Empty: "embedded".
	Kind string `json:"kind"`
	// Endpoints are the addresses for clients: URLs, or of ZooKeeper host:port.
	Endpoints []string `json:"endpoints"`
}

const (
	embeddedKind  = "embedded"
	etcdKind      = "etcd"
	consulKind    = "consul"
	zookeeperKind = "zookeeper"
)

// kinds are all that a store can be.
var kinds = []string{embeddedKind, etcdKind, consulKind, zookeeperKind}

// Open connects to the store. close must be called: leases that are held over the connection then run out by
// themselves. Nobody need listen yet. Kind "etcd" takes https:// URLs too, of servers that the system's certificate
// authorities vouch for; only a runner refuses them.
func (d DCS) Open() (store dcs.Store, close func(), err error) {
	c, err := d.connect()
	if err != nil {
		return nil, nil, err
	}
	return c.Store, func() { _ = c.close() }, nil // nothing is lost with it
}

// connection is a store with what belongs to its technology.
type connection struct {
	dcs.Store
	remove func(ctx context.Context, dir string) error // all that is below dir
	close  func() error
}

func (d DCS) connect() (*connection, error) {
	given, tls := d.Endpoints, false
	if d.Kind == etcdKind {
		d.Endpoints = slices.Clone(given)
		for i, e := range given {
			if rest, ok := strings.CutPrefix(e, "https://"); ok {
				d.Endpoints[i], tls = rest, true
			}
		}
	}
	hosts, err := d.hosts()
	if err != nil {
		return nil, fmt.Errorf("local: DCS.%w", err)
	}
	if len(hosts) == 0 {
		return nil, errors.New("local: DCS.Endpoints is empty")
	}
	switch d.Kind {
	case embeddedKind, etcdKind, "":
		if tls {
			return connectEtcd(given)
		}
		return connectEtcd(d.at(hosts).Endpoints)
	case consulKind:
		return connectConsul(hosts)
	case zookeeperKind:
		return connectZooKeeper(hosts)
	}
	return nil, fmt.Errorf("local: DCS.Kind %q is none of %s", d.Kind, strings.Join(kinds, ", "))
}

// hosts are the endpoints as host:port.
func (d DCS) hosts() ([]string, error) {
	var hosts []string
	for i, e := range d.Endpoints {
		host := strings.TrimSuffix(strings.TrimPrefix(e, "http://"), "/")
		if strings.Contains(host, "://") {
			return nil, fmt.Errorf("Endpoints[%d] %q: a stack speaks plain HTTP to its store, without TLS", i, e)
		}
		if _, _, err := net.SplitHostPort(host); err != nil || strings.Contains(host, "/") {
			return nil, fmt.Errorf("Endpoints[%d] %q is not an address with a port, such as 127.0.0.1:2379", i, e)
		}
		hosts = append(hosts, host)
	}
	return hosts, nil
}

// at is the same store at other addresses, host:port.
func (d DCS) at(hosts []string) DCS {
	d.Endpoints = slices.Clone(hosts)
	if d.Kind != zookeeperKind {
		for i, h := range hosts {
			d.Endpoints[i] = "http://" + h
		}
	}
	return d
}

// program is what the store's servers run.
func (d DCS) program() string {
	if d.Kind == embeddedKind {
		return etcdKind
	}
	return d.Kind
}

// server is the name of one of the store's servers.
func (d DCS) server(i int) string { return fmt.Sprintf("%s-%d", d.program(), i+1) }

// own reports whether the stack runs the servers itself.
func (d DCS) own() bool { return len(d.Endpoints) == 0 }

// check refuses what cannot be a runner's store.
func (d DCS) check() error {
	if _, err := d.hosts(); err != nil {
		return fmt.Errorf("local: Runner.DCS.%w", err)
	}
	switch {
	case !slices.Contains(kinds, d.Kind):
		return fmt.Errorf("local: Runner.DCS.Kind %q is none of %s", d.Kind, strings.Join(kinds, ", "))
	case d.Kind == etcdKind && d.own():
		return errors.New(`local: Runner.DCS.Endpoints is empty: Kind "etcd" is one of yours; for one of the stack's own it is "embedded"`)
	case d.Kind == embeddedKind && !d.own():
		return errors.New(`local: Runner.DCS.Endpoints is set: Kind "embedded" is the stack's own; for one of yours it is "etcd", "consul" or "zookeeper"`)
	}
	return nil
}

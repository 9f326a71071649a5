package local

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"

	"github.com/pgconvoy/pgconvoy/topology"
)

// Those who connect and are not one component.
const (
	client      = "client"      // whoever uses WriteDSN and ReadDSN
	coordinator = "coordinator" // whoever uses Patroni and Coordinator
	replicas    = "replicas"    // those that stream from a node
	poolers     = "poolers"     // all of them: Patroni knows one address for them
	peers       = "peers"       // the Patronis among themselves
)

// published are the addresses that a node tells the cluster, where others are led past its own.
type published struct{ replication, poolers, api netip.AddrPort }

// wiring is how components reach each other.
type wiring struct {
	via         func(from, to string, addr netip.AddrPort) (netip.AddrPort, error)
	write, read netip.AddrPort // Envoy, for clients
	nodes       map[string]published
	coordinator detours
}

// reach is the address at which from reaches to.
func (w *wiring) reach(from, to string, addr netip.AddrPort) (netip.AddrPort, error) {
	if w.via == nil {
		return addr, nil
	}
	through, err := w.via(from, to, addr)
	if err != nil {
		return through, fmt.Errorf("local: Runner.Via from %s to %s: %w", from, to, err)
	}
	if !through.IsValid() || through.Port() == 0 {
		return through, fmt.Errorf("local: Runner.Via from %s to %s is %v, which is no address", from, to, through)
	}
	return through, nil
}

// wire asks for all that is needed before the first program starts.
func (w *wiring) wire(spec topology.Spec) error {
	var err error
	ask := func(from, to string, addr netip.AddrPort) (through netip.AddrPort) {
		if err == nil {
			through, err = w.reach(from, to, addr)
		}
		return through
	}
	w.write, w.read = ask(client, envoy, spec.Envoy.Write), ask(client, envoy, spec.Envoy.Read)
	w.nodes, w.coordinator = map[string]published{}, detours{}
	for _, n := range spec.Nodes {
		p := published{
			replication: ask(replicas, database(n.Name), n.Postgres),
			poolers:     ask(poolers, database(n.Name), n.Postgres),
			api:         ask(peers, manager(n.Name), n.API),
		}
		w.nodes[n.Name] = p
		w.coordinator[p.api] = ask(coordinator, manager(n.Name), n.API)
		w.coordinator[p.replication] = n.Postgres // who proves a primary in this process is not led astray
	}
	return err
}

// detours are addresses that one component reaches by way of others.
type detours map[netip.AddrPort]netip.AddrPort

// detours are those of a component that asks the nodes: their databases and their Patronis.
func (w *wiring) detours(from string, spec topology.Spec) (detours, error) {
	d := detours{}
	for _, n := range spec.Nodes {
		var err error
		if d[w.nodes[n.Name].replication], err = w.reach(from, database(n.Name), n.Postgres); err != nil {
			return nil, err
		}
		if d[w.nodes[n.Name].api], err = w.reach(from, manager(n.Name), n.API); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// dial connects to an address, or to what stands for it.
func (d detours) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if a, err := netip.ParseAddrPort(address); err == nil {
		if through, ok := d[a]; ok {
			address = through.String()
		}
	}
	return (&net.Dialer{}).DialContext(ctx, network, address)
}

// http is a client for Patroni's API, which closes each connection after its answer.
func (d detours) http() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: d.dial}}
}

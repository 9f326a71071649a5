package envoyconf

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
)

// Health is what the control plane says of an endpoint. Envoy's own health check comes on top: only an endpoint that
// both call healthy gets new connections.
type Health int

const (
	// Healthy endpoints get new connections. It is the zero value.
	Healthy Health = iota
	// Draining endpoints get no new connections, keep the ones that they have, and are not health-checked any more:
	// a PgBouncer that waits for its clients has closed its listening socket, and must not lose them for that.
	Draining
	// Unhealthy endpoints get no new connections. Their health check goes on, and cuts their connections when it fails.
	Unhealthy
)

// String returns healthy, draining or unhealthy.
func (h Health) String() string {
	switch h {
	case Healthy:
		return "healthy"
	case Draining:
		return "draining"
	case Unhealthy:
		return "unhealthy"
	}
	return fmt.Sprintf("Health(%d)", int(h))
}

// Endpoint is one PgBouncer as Envoy sees it. It is comparable.
type Endpoint struct {
	Addr   netip.AddrPort // a literal address without a zone, and a port
	Health Health
}

// Validate says whether endpoints can be served for a service: a service is named by letters, digits, "-" and "_"; an
// address is a literal one with a port, and occurs once. No endpoint at all is valid: the service then refuses clients.
func Validate(service string, endpoints []Endpoint) error {
	if err := checkName(service); err != nil {
		return fmt.Errorf("envoyconf: service %w", err)
	}
	if err := checkEndpoints(endpoints); err != nil {
		return fmt.Errorf("envoyconf: service %s: %w", service, err)
	}
	return nil
}

// Version is the content hash of endpoints, whatever their order: 16 hexadecimal digits. Equal content has an equal
// version on every control plane, so an Envoy that moves from one to another need not be sent anything.
func Version(endpoints []Endpoint) string {
	h := sha256.New()
	// The first line is the form of the resource. It changes when Assignment makes something else of the same endpoints.
	fmt.Fprintln(h, "pgconvoy endpoints 1")
	for _, e := range canonical(endpoints) {
		fmt.Fprintln(h, e.Addr, e.Health)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// Assignment is the EDS resource of a service. Endpoints are sorted, so equal content makes an equal resource.
func Assignment(service string, endpoints []Endpoint) *endpointv3.ClusterLoadAssignment {
	a := &endpointv3.ClusterLoadAssignment{ClusterName: service}
	if len(endpoints) == 0 {
		return a
	}
	hosts := make([]*endpointv3.LbEndpoint, 0, len(endpoints))
	for _, e := range canonical(endpoints) {
		hosts = append(hosts, lbEndpoint(e))
	}
	a.Endpoints = []*endpointv3.LocalityLbEndpoints{{LbEndpoints: hosts}}
	return a
}

func lbEndpoint(e Endpoint) *endpointv3.LbEndpoint {
	host := &endpointv3.Endpoint{Address: address(e.Addr)}
	status := corev3.HealthStatus_HEALTHY
	switch e.Health {
	case Draining:
		status = corev3.HealthStatus_DRAINING
		host.HealthCheckConfig = &endpointv3.Endpoint_HealthCheckConfig{DisableActiveHealthCheck: true}
	case Unhealthy:
		status = corev3.HealthStatus_UNHEALTHY
	}
	return &endpointv3.LbEndpoint{
		HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: host},
		HealthStatus:   status,
	}
}

// canonical returns a sorted copy; an IPv4 address in IPv6 form is the IPv4 address.
func canonical(endpoints []Endpoint) []Endpoint {
	c := slices.Clone(endpoints)
	for i := range c {
		c[i].Addr = unmap(c[i].Addr)
	}
	slices.SortFunc(c, func(a, b Endpoint) int {
		return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Health, b.Health))
	})
	return c
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

func address(a netip.AddrPort) *corev3.Address {
	a = unmap(a)
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address:       a.Addr().String(),
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(a.Port())},
	}}}
}

package envoyconf

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// controlPlaneCluster names the cluster that leads to the control planes. No service can have the name: it has a dot.
const controlPlaneCluster = "pgconvoy.controlplane"

// check refuses what Envoy would refuse, and what it would take and serve wrongly. Each error names the field.
func (f Fleet) check() error {
	if err := checkAddr(f.Admin); err != nil {
		return fmt.Errorf("Admin: %w", err)
	}
	if len(f.Listeners) == 0 {
		return errors.New("Listeners: none")
	}
	type socket struct {
		field string
		addr  netip.AddrPort
	}
	taken := []socket{{"Admin", f.Admin}}
	services := map[string]bool{}
	for i, l := range f.Listeners {
		field := fmt.Sprintf("Listeners[%d]", i)
		if err := checkName(l.Service); err != nil {
			return fmt.Errorf("%s.Service: %w", field, err)
		}
		if err := checkAddr(l.Listen); err != nil {
			return fmt.Errorf("%s.Listen: %w", field, err)
		}
		for _, other := range taken {
			if overlap(other.addr, l.Listen) {
				return fmt.Errorf("%s.Listen: %s is taken by %s (%s)", field, l.Listen, other.field, other.addr)
			}
		}
		taken = append(taken, socket{field + ".Listen", l.Listen})
		services[l.Service] = true
	}
	if f.ConnectTimeout < 0 {
		return errors.New("ConnectTimeout: negative")
	}
	if f.CheckInterval < 0 {
		return errors.New("CheckInterval: negative")
	}
	return f.checkSource(services)
}

// checkSource wants exactly one source of endpoints, complete for the services that are listened for.
func (f Fleet) checkSource(services map[string]bool) error {
	switch {
	case len(f.ControlPlanes) == 0 && len(f.Static) == 0:
		return errors.New("ControlPlanes and Static: both empty, no endpoint would ever come")
	case len(f.ControlPlanes) > 0 && len(f.Static) > 0:
		return errors.New("ControlPlanes and Static: both set")
	case len(f.ControlPlanes) > 0:
		if f.Node == "" {
			return errors.New("Node: empty, the control plane could not tell the Envoys apart")
		}
		seen := map[netip.AddrPort]bool{}
		for i, a := range f.ControlPlanes {
			if err := checkTarget(a); err != nil {
				return fmt.Errorf("ControlPlanes[%d]: %w", i, err)
			}
			if seen[unmap(a)] {
				return fmt.Errorf("ControlPlanes[%d]: %s occurs twice", i, a)
			}
			seen[unmap(a)] = true
		}
		return nil
	}
	for _, service := range slices.Sorted(maps.Keys(f.Static)) {
		if !services[service] {
			return fmt.Errorf("Static[%q]: no listener serves it", service)
		}
		if err := checkEndpoints(f.Static[service]); err != nil {
			return fmt.Errorf("Static[%q]: %w", service, err)
		}
	}
	for i, l := range f.Listeners {
		if len(f.Static[l.Service]) == 0 {
			return fmt.Errorf("Static: no endpoint for Listeners[%d].Service %q", i, l.Service)
		}
	}
	return nil
}

func checkEndpoints(endpoints []Endpoint) error {
	seen := map[netip.AddrPort]bool{}
	for i, e := range endpoints {
		if err := checkTarget(e.Addr); err != nil {
			return fmt.Errorf("endpoint %d: Addr: %w", i, err)
		}
		if e.Health < Healthy || e.Health > Unhealthy {
			return fmt.Errorf("endpoint %d: Health: %s is unknown", i, e.Health)
		}
		if seen[unmap(e.Addr)] {
			return fmt.Errorf("endpoint %d: Addr: %s occurs twice", i, e.Addr)
		}
		seen[unmap(e.Addr)] = true
	}
	return nil
}

// checkName allows what is safe in a stat name, a resource name and a version string.
func checkName(service string) error {
	if service == "" {
		return errors.New("has no name")
	}
	for _, c := range service {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return fmt.Errorf("%q has a character other than letters, digits, - and _", service)
		}
	}
	return nil
}

func checkAddr(a netip.AddrPort) error {
	switch {
	case !a.Addr().IsValid():
		return errors.New("no address")
	case a.Port() == 0:
		return fmt.Errorf("%s has no port", a)
	case a.Addr().Zone() != "":
		return fmt.Errorf("%s has a zone, which Envoy cannot use", a)
	}
	return nil
}

func checkTarget(a netip.AddrPort) error {
	if err := checkAddr(a); err != nil {
		return err
	}
	if a.Addr().Unmap().IsUnspecified() {
		return fmt.Errorf("%s is no address to connect to", a)
	}
	return nil
}

// overlap is true when both could not be bound, or would silently share a port: Envoy binds with SO_REUSEPORT.
func overlap(a, b netip.AddrPort) bool {
	a, b = unmap(a), unmap(b)
	if a.Port() != b.Port() {
		return false
	}
	return a.Addr() == b.Addr() || a.Addr().IsUnspecified() || b.Addr().IsUnspecified()
}

package envoyconf_test

import (
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"

	"github.com/pgconvoy/pgconvoy/envoyconf"
)

func TestVersion(t *testing.T) {
	a := envoyconf.Endpoint{Addr: addr("10.0.0.1:6432")}
	b := envoyconf.Endpoint{Addr: addr("10.0.0.2:6432")}
	draining := envoyconf.Endpoint{Addr: b.Addr, Health: envoyconf.Draining}
	mapped := envoyconf.Endpoint{Addr: addr("[::ffff:10.0.0.1]:6432")}
	v := envoyconf.Version([]envoyconf.Endpoint{a, b})
	// Versions must be equal across releases too: control planes are upgraded one by one.
	if want := "50b39ad0947de5aa"; v != want {
		t.Errorf("version of a known set is %s, want %s", v, want)
	}
	for name, same := range map[string][]envoyconf.Endpoint{"other order": {b, a}, "mapped": {mapped, b}} {
		if got := envoyconf.Version(same); got != v {
			t.Errorf("%s: %s, want %s", name, got, v)
		}
		if !proto.Equal(envoyconf.Assignment("write", same), envoyconf.Assignment("write", []envoyconf.Endpoint{a, b})) {
			t.Errorf("%s: another resource", name)
		}
	}
	for name, other := range map[string][]envoyconf.Endpoint{"none": nil, "one": {a}, "draining": {a, draining}} {
		if got := envoyconf.Version(other); got == v {
			t.Errorf("%s has the same version", name)
		}
	}
}

func TestAssignment(t *testing.T) {
	a := envoyconf.Assignment("write", []envoyconf.Endpoint{
		{Addr: addr("10.0.0.3:6432"), Health: envoyconf.Unhealthy},
		{Addr: addr("10.0.0.2:6432"), Health: envoyconf.Draining},
		{Addr: addr("10.0.0.1:6432")},
	})
	want := []corev3.HealthStatus{corev3.HealthStatus_HEALTHY, corev3.HealthStatus_DRAINING, corev3.HealthStatus_UNHEALTHY}
	if a.GetClusterName() != "write" || len(a.GetEndpoints()) != 1 {
		t.Fatalf("got %v", a)
	}
	for i, e := range a.GetEndpoints()[0].GetLbEndpoints() {
		if e.GetHealthStatus() != want[i] {
			t.Errorf("endpoint %d is %v, want %v", i, e.GetHealthStatus(), want[i])
		}
		if unchecked := e.GetEndpoint().GetHealthCheckConfig().GetDisableActiveHealthCheck(); unchecked != (want[i] == corev3.HealthStatus_DRAINING) {
			t.Errorf("endpoint %d: health check off is %v", i, unchecked)
		}
	}
	if empty := envoyconf.Assignment("write", nil); len(empty.GetEndpoints()) != 0 {
		t.Errorf("got %v", empty)
	}
}

func TestValidate(t *testing.T) {
	if err := envoyconf.Validate("write", nil); err != nil {
		t.Error(err)
	}
	if err := envoyconf.Validate("", nil); err == nil || err.Error() != "envoyconf: service has no name" {
		t.Errorf("got %v", err)
	}
	err := envoyconf.Validate("write", []envoyconf.Endpoint{{Addr: addr("[::]:6432")}})
	if err == nil || !strings.Contains(err.Error(), "service write: endpoint 0: Addr: [::]:6432 is no address") {
		t.Errorf("got %v", err)
	}
}

func TestHealthString(t *testing.T) {
	for h, want := range map[envoyconf.Health]string{
		envoyconf.Healthy: "healthy", envoyconf.Draining: "draining", envoyconf.Unhealthy: "unhealthy", 9: "Health(9)",
	} {
		if got := h.String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

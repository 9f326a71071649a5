package consumer_test

import (
	"encoding/json"
	"errors"
	"net/netip"
	"testing"

	"github.com/pgconvoy/pgconvoy/envoyconf"
	"github.com/pgconvoy/pgconvoy/topology"
)

// ownConfig is the default one, for Envoys whose admin interface nobody else can reach.
type ownConfig struct{ envoyconf.L4 }

var _ topology.EnvoyConfig = ownConfig{}

func (c ownConfig) Bootstrap(f envoyconf.Fleet) ([]byte, error) {
	if !f.Admin.Addr().IsLoopback() {
		return nil, errors.New("Fleet.Admin is not a loopback address")
	}
	return c.L4.Bootstrap(f)
}

func TestEnvoyConfig(t *testing.T) {
	var config topology.EnvoyConfig = ownConfig{}
	entry := envoyconf.Listener{Service: topology.Write.String(), Listen: netip.MustParseAddrPort("0.0.0.0:5432")}
	fleet := envoyconf.Fleet{
		Node: "envoy-1", Admin: netip.MustParseAddrPort("127.0.0.1:9901"),
		ControlPlanes: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.5:18000")},
		Listeners:     []envoyconf.Listener{entry},
	}
	b, err := config.Bootstrap(fleet)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Node struct{ ID string }
	}
	if err := json.Unmarshal(b, &file); err != nil || file.Node.ID != "envoy-1" {
		t.Errorf("the file is of the node %q (%v), want envoy-1", file.Node.ID, err)
	}
	fleet.Admin = netip.MustParseAddrPort("10.0.0.1:9901")
	if _, err := config.Bootstrap(fleet); err == nil {
		t.Error("an admin interface for everybody was accepted")
	}
}

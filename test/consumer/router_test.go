package consumer_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs/memory"
	"github.com/pgconvoy/pgconvoy/envoyconf"
	"github.com/pgconvoy/pgconvoy/topology"
)

// ownRouter hands on the endpoints of one service.
type ownRouter struct {
	service   string
	endpoints chan []envoyconf.Endpoint
}

var _ topology.Router = ownRouter{}

func (r ownRouter) Set(ctx context.Context, service string, endpoints []envoyconf.Endpoint) (string, error) {
	if service == r.service && len(endpoints) > 0 {
		select {
		case r.endpoints <- endpoints:
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
	return envoyconf.Version(endpoints), nil
}

func (ownRouter) Wait(context.Context, string, string) error { return nil }

func TestRouter(t *testing.T) {
	store := memory.New()
	runAgent(t, store, newPooler())
	router := ownRouter{topology.Write.String(), make(chan []envoyconf.Endpoint)}
	run(t, (&topology.ControlPlane{
		Cluster: topology.Cluster{Path: "/service/demo", Store: store}, Name: "cp-1", Router: router,
	}).Run)
	want := envoyconf.Endpoint{Addr: netip.MustParseAddrPort("10.0.0.7:6432")}
	select {
	case got := <-router.endpoints:
		if len(got) != 1 || got[0].Addr != want.Addr {
			t.Errorf("the router was handed %v, want %v", got, want)
		}
	case <-time.After(time.Minute):
		t.Fatal("the router was handed nothing")
	}
}

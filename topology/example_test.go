package topology_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"time"

	"google.golang.org/grpc"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/memory"
	"github.com/pgconvoy/pgconvoy/envoyconf"
	"github.com/pgconvoy/pgconvoy/envoyconf/xds"
	"github.com/pgconvoy/pgconvoy/patroni"
	"github.com/pgconvoy/pgconvoy/pooler"
	"github.com/pgconvoy/pgconvoy/topology"
)

// A platform embeds the coordinator: a preview, the operation, and what the stack looks like after it.
func ExampleCoordinator() {
	ctx := context.Background()
	var cluster topology.Cluster // its Path, Store and Prober
	co := &topology.Coordinator{Cluster: cluster, Patroni: &patroni.Client{Username: "admin", Password: "secret"}}

	plan, err := co.Plan(ctx, topology.Switchover{To: "n2"})
	if err != nil {
		return
	}
	fmt.Print(plan)
	report, err := co.Do(ctx, topology.Switchover{To: "n2", Budget: 2 * time.Second})
	if refused, ok := errors.AsType[*topology.RefusedError](err); ok {
		for _, r := range refused.Refusals {
			fmt.Println(r.Reason, "-", r.Remedy)
		}
		return
	}
	if errors.Is(err, topology.ErrUnknown) {
		fmt.Println("look at the view:", err)
	}
	fmt.Print(report)
	fmt.Print((&topology.Observer{Path: cluster.Path, Store: cluster.Store}).View(ctx))
}

// A sidecar beside each PgBouncer. It leaves PgBouncer serving when it stops.
func ExampleAgent() {
	ctx := context.Background()
	var cluster topology.Cluster // its Path, Store and Prober
	var console pooler.Connect   // to PgBouncer's admin console
	agent := &topology.Agent{
		Cluster: cluster, Name: "pgb-1", Service: topology.Write,
		Listen: netip.MustParseAddrPort("10.0.0.7:6432"),
		Pooler: &pooler.Local{Config: "/etc/pgbouncer/pgbouncer.ini", Connect: console},
	}
	fmt.Println(agent.Run(ctx))
}

// A control plane for any number of Envoys: the caller owns the listener, TLS and the gRPC server.
func ExampleControlPlane() {
	ctx := context.Background()
	var cluster topology.Cluster // its Path and Store
	server := xds.New(xds.Config{})
	grpcServer := grpc.NewServer()
	server.Register(grpcServer)
	fmt.Println((&topology.ControlPlane{Cluster: cluster, Name: "cp-1", Router: server}).Run(ctx))
}

// onePrimary is a LeaderSource for a setup whose primary never changes.
type onePrimary struct{ addr netip.AddrPort }

var _ topology.LeaderSource = onePrimary{}

// Watch proves nothing in this example; a real source asks its manager and the server, and says when it began to ask.
func (o onePrimary) Watch(ctx context.Context) iter.Seq2[patroni.Leadership, error] {
	return func(yield func(patroni.Leadership, error) bool) {
		began := time.Now()
		l := patroni.Leadership{
			Phase: patroni.Writable, Member: "n1", Addr: o.addr, At: began, Reason: "by definition",
			Epoch: patroni.Epoch{SystemID: "7268616322854375442", Timeline: 1, Created: 1},
			Proof: patroni.Proof{Writable: true, At: began},
		}
		if !yield(l, nil) {
			return
		}
		<-ctx.Done()
		yield(l, context.Cause(ctx))
	}
}

// printer is a Pooler that says what is asked of it.
type printer struct {
	state  pooler.State
	routed context.CancelFunc // for the example's end
}

var _ topology.Pooler = (*printer)(nil)

func (p *printer) State(context.Context) (pooler.State, error) { return p.state, nil }

func (p *printer) Hold(context.Context) error {
	fmt.Println("hold")
	return nil
}

func (p *printer) Route(_ context.Context, to pooler.Target) error {
	fmt.Println("route to", to)
	p.state.Target = to
	p.routed()
	return nil
}

// Another manager of the primary, and another pooler, behind the same agent.
func ExampleLeaderSource() {
	ctx, cancel := context.WithCancel(context.Background())
	agent := &topology.Agent{
		Cluster: topology.Cluster{
			Path: "/service/demo", Store: memory.New(),
			Leaders: onePrimary{netip.MustParseAddrPort("10.0.0.1:5432")},
		},
		Name: "odyssey-1", Listen: netip.MustParseAddrPort("10.0.0.7:6432"), Pooler: &printer{routed: cancel},
	}
	fmt.Println(agent.Run(ctx))
	// Output:
	// route to 10.0.0.1:5432 (7268616322854375442/1/1)
	// context canceled
}

// A Pooler has three methods.
func ExamplePooler() {
	p := &printer{routed: func() {}}
	var seam topology.Pooler = p
	if err := seam.Route(context.Background(), pooler.Target{Hosts: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:5432")}}); err != nil {
		fmt.Println(err)
	}
	state, err := seam.State(context.Background())
	fmt.Println(state.Target, err)
	// Output:
	// route to 10.0.0.1:5432
	// 10.0.0.1:5432 <nil>
}

// haproxy is a Router that prints what it would tell HAProxy's runtime API.
type haproxy struct{ told context.CancelFunc }

var _ topology.Router = haproxy{}

func (h haproxy) Set(_ context.Context, service string, endpoints []envoyconf.Endpoint) (version string, err error) {
	for i, e := range endpoints {
		fmt.Printf("set server %s/s%d addr %s port %d\n", service, i+1, e.Addr.Addr(), e.Addr.Port())
	}
	h.told()
	return envoyconf.Version(endpoints), nil
}

// Wait has nothing to wait for: the runtime API answers when it is done.
func (haproxy) Wait(context.Context, string, string) error { return nil }

// Another load balancer behind the control plane.
func ExampleRouter() {
	ctx, cancel := context.WithCancel(context.Background())
	store := memory.New()
	// What the agent of a pooler has written.
	_, _ = store.Put(ctx, "/pgconvoy/service/demo/fleet/pgb-1", []byte(`{"v":1,"service":"write","address":"10.0.0.7:6432"}`), dcs.Version{})
	cp := &topology.ControlPlane{
		Cluster: topology.Cluster{Path: "/service/demo", Store: store}, Name: "cp-1", Router: haproxy{cancel},
	}
	fmt.Println(cp.Run(ctx))
	// Output:
	// set server write/s1 addr 10.0.0.7 port 6432
	// context canceled
}

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

// written puts what others have written into a store.
func written(entries ...string) *memory.Store {
	store := memory.New()
	for i := 0; i < len(entries); i += 2 {
		if _, err := store.Put(context.Background(), entries[i], []byte(entries[i+1]), dcs.Version{}); err != nil {
			fmt.Println(err)
		}
	}
	return store
}

// An operator takes a pooler out of service, gives its clients a moment, and changes their mind.
func ExampleFleet() {
	store := written( // by the agents of three poolers, of which one is gone
		"/pgconvoy/service/demo/fleet/pgb-1", `{"v":1,"service":"write","address":"10.0.0.7:6432"}`,
		"/pgconvoy/service/demo/fleet/pgb-2", `{"v":1,"service":"write","address":"10.0.0.8:6432"}`,
		"/pgconvoy/service/demo/fleet/pgb-3", `{"v":1,"service":"write","address":"10.0.0.9:6432"}`,
		"/pgconvoy/service/demo/poolers/pgb-1", `{"v":1,"abilities":["drain"],"state":"routed"}`,
		"/pgconvoy/service/demo/poolers/pgb-2", `{"v":1,"abilities":["drain"],"state":"routed","draining":true}`,
	)
	fleet := &topology.Fleet{Path: "/service/demo", Store: store}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	err := fleet.Drain(ctx, "pgb-2")
	fmt.Println(err)
	fmt.Println(errors.Is(err, context.DeadlineExceeded))

	ctx = context.Background()
	err = fleet.Drain(ctx, "pgb-1")
	if refused, ok := errors.AsType[*topology.RefusedError](err); ok {
		fmt.Println(refused.Refusals[0].Remedy)
	}
	fmt.Println(fleet.Admit(ctx, "pgb-2"))
	fmt.Println(fleet.Remove(ctx, "pgb-3")) // its agent is gone
	// Output:
	// topology: Fleet.Drain pgb-2 of /service/demo: it is marked, but pgb-2 still has clients: context deadline exceeded; drain it again to go on waiting, or admit it
	// true
	// admit or start another one first
	// <nil>
	// <nil>
}

// The store was rebuilt, and an operator knows that the primary that it names is the right one.
func ExampleFleet_Accept() {
	ctx := context.Background()
	store := written(
		"/pgconvoy/service/demo/fleet/pgb-1", `{"v":1,"service":"write","address":"10.0.0.7:6432"}`,
		"/pgconvoy/service/demo/poolers/pgb-1", `{"v":1,"state":"failed","error":"n2 is proven at epoch 7268616322854375442/3/12 and is not followed: rebuilt"}`,
	)
	view := (&topology.Observer{Path: "/service/demo", Store: store}).View(ctx)
	fmt.Println(view.Poolers[0].Error)

	epoch, err := patroni.ParseEpoch("7268616322854375442/3/12")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println((&topology.Fleet{Path: "/service/demo", Store: store}).Accept(ctx, epoch))
	// Output:
	// n2 is proven at epoch 7268616322854375442/3/12 and is not followed: rebuilt
	// <nil>
}

// Everything that is known about a stack, and how good it is.
func ExampleObserver() {
	ctx := context.Background()
	store := written(
		"/service/demo/leader", "n1",
		"/service/demo/members/n1", `{"conn_url":"postgres://10.0.0.1:5432/postgres","state":"running","role":"primary","timeline":3}`,
		"/pgconvoy/service/demo/fleet/pgb-1", `{"v":1,"service":"write","address":"10.0.0.7:6432"}`,
	)
	observer := &topology.Observer{
		Path: "/service/demo", Store: store,
		Console: func(context.Context, string, netip.AddrPort) (pooler.State, error) { // a pooler.Local's State in earnest
			return pooler.State{Version: "1.24.1", Clients: 120, Waiting: 2}, nil
		},
	}
	view := observer.View(ctx)
	fmt.Print(view)
	member := view.Members[0]
	fmt.Println(member.Seen.Source, member.Seen.Key, member.Seen.Age(view.At) < time.Minute)
	for v, err := range observer.Watch(ctx) { // each change
		if err != nil {
			fmt.Println(err)
			break
		}
		if v.Stale != "" {
			fmt.Println("not confirmed for", v.Age())
		}
		if v.Leadership.Member != "" {
			break
		}
	}
	// Output:
	// /service/demo  leader n1 elected, epoch -
	//   n1       10.0.0.1:5432         primary  running               timeline 3
	//   pgb-1    10.0.0.7:6432         write    no agent   to nothing  120 clients, 2 waiting
	// store /service/demo/members/n1 true
}

// Why did traffic move at 03:12?
func ExampleObserver_Events() {
	store := written("/pgconvoy-history/service/demo/pgb-1/moves", `{"v":1,"moves":[
		{"at":"2026-11-24T03:12:04.880Z","from":"routed","to":"held","target":["10.0.0.1:5432"],
		 "epoch":{"system_id":"7268616322854375442","timeline":2,"created":40},
		 "cause":"the primary is lost","leader":"n1","evidence":"connection refused"},
		{"at":"2026-11-24T03:12:05.120Z","from":"held","to":"routed","target":["10.0.0.2:5432"],
		 "epoch":{"system_id":"7268616322854375442","timeline":3,"created":57},
		 "cause":"a newer leadership is proven","leader":"n2","evidence":"writable on timeline 3"}]}`)
	n := 0
	for event, err := range (&topology.Observer{Path: "/service/demo", Store: store}).Events(context.Background()) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(event)
		if n++; n == 2 {
			break // it would go on with what happens next
		}
	}
	// Output:
	// 2026-11-24T03:12:04.880Z pgb-1: routed -> held, clients to 10.0.0.1:5432, epoch 7268616322854375442/2/40: the primary is lost (leader n1: connection refused)
	// 2026-11-24T03:12:05.120Z pgb-1: held -> routed, clients to 10.0.0.2:5432, epoch 7268616322854375442/3/57: a newer leadership is proven (leader n2: writable on timeline 3)
}

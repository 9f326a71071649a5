package topology

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/pgconvoy/pgconvoy/dcs/memory"
)

// refuses checks that an error names exactly these fields, or is nil where there are none.
func refuses(t *testing.T, err error, fields ...string) {
	t.Helper()
	if (err == nil) != (len(fields) == 0) {
		t.Errorf("error %v, want %q", err, fields)
		return
	}
	if err == nil {
		return
	}
	if n := strings.Count(err.Error(), "\n") + 1; n != len(fields) {
		t.Errorf("%d errors, want %d: %v", n, len(fields), err)
	}
	for _, f := range fields {
		if !strings.Contains(err.Error(), f) {
			t.Errorf("%q is not in: %v", f, err)
		}
	}
}

func TestValidateAgent(t *testing.T) {
	good := func() *Agent {
		return &Agent{
			Cluster: Cluster{Path: demo, Store: memory.New(), Leaders: &fakeLeaders{}},
			Name:    "pgb-1", Listen: netip.MustParseAddrPort("10.0.0.1:6432"), Pooler: &fakePooler{},
		}
	}
	refuses(t, good().Validate())
	for field, change := range map[string]func(*Agent){
		"Agent.Path":     func(a *Agent) { a.Path = "demo" },
		"Agent.Path: ":   func(a *Agent) { a.Path = "" },
		"Agent.Path \"":  func(a *Agent) { a.Path = "/service/a/b" },
		"Agent.Store":    func(a *Agent) { a.Store = nil },
		"Agent.Prober":   func(a *Agent) { a.Leaders = nil },
		"Agent.Name is":  func(a *Agent) { a.Name = "" },
		"Agent.Name \"":  func(a *Agent) { a.Name = "a/b" },
		"Agent.Name":     func(a *Agent) { a.Name = ".." },
		"Agent.Listen":   func(a *Agent) { a.Listen = netip.AddrPort{} },
		"Agent.Listen 0": func(a *Agent) { a.Listen = netip.MustParseAddrPort("0.0.0.0:6432") },
		"Agent.Listen 1": func(a *Agent) { a.Listen = netip.MustParseAddrPort("10.0.0.1:0") },
		"Agent.Pooler":   func(a *Agent) { a.Pooler = nil },
		"Agent.Service":  func(a *Agent) { a.Service = 7 },
		"Agent.Patience": func(a *Agent) { a.Patience = -1 },
	} {
		a := good()
		change(a)
		refuses(t, a.Validate(), field)
		if err := a.Run(t.Context()); err == nil {
			t.Errorf("%s: Run took it", field)
		}
	}
	group := good()
	group.Path = "/service/demo/0" // Citus
	refuses(t, group.Validate())
}

func TestValidateRoles(t *testing.T) {
	refuses(t, (&ControlPlane{}).Validate(), "ControlPlane.Path", "ControlPlane.Store", "ControlPlane.Router", "ControlPlane.Name")
	refuses(t, (&ControlPlane{Cluster: Cluster{Path: demo, Store: memory.New()}, Name: "cp-1", Router: &fakeRouter{}}).Validate())
	refuses(t, (&Coordinator{}).Validate(), "Coordinator.Path", "Coordinator.Store", "Coordinator.Prober")
	refuses(t, (&Coordinator{Cluster: Cluster{Path: demo, Store: memory.New(), Leaders: &fakeLeaders{}}}).Validate())
	refuses(t, (&Observer{Store: memory.New()}).Validate(), "Observer.Path")
	refuses(t, (&Observer{Path: demo}).Validate(), "Observer.Store")
	refuses(t, (&Observer{Path: demo, Store: memory.New()}).Validate())
	refuses(t, (&BeforeStop{}).Validate(), "BeforeStop.Path", "BeforeStop.Store", "BeforeStop.Member")
	refuses(t, (&BeforeStop{Path: demo, Store: memory.New(), Member: "n1"}).Validate())
	if err := (&ControlPlane{}).Run(t.Context()); err == nil {
		t.Error("a control plane without fields ran")
	}
}

func TestValidateSpec(t *testing.T) {
	at := netip.MustParseAddrPort
	for _, c := range []struct {
		name   string
		spec   Spec
		fields []string
	}{
		{"zero", Spec{}, nil},
		{"given", Spec{
			Nodes:   []Node{{Name: "a", Postgres: at("10.0.0.1:5432"), API: at("10.0.0.1:8008")}, {Name: "b", Postgres: at("10.0.0.2:5432")}},
			Poolers: []PgBouncer{{Name: "p", Listen: at("10.0.0.1:6432")}, {Name: "q", Read: true}},
			Envoy:   Envoy{Write: at("10.0.0.9:5432")},
		}, nil},
		{"path", Spec{Path: "demo"}, []string{"Spec.Path"}},
		{"no node", Spec{Nodes: []Node{}}, []string{"Spec.Nodes is empty"}},
		{"no write pooler", Spec{Poolers: PoolersNamed(0, 1)}, []string{"Spec.Poolers has no write pooler"}},
		{"no pooler", Spec{Poolers: []PgBouncer{}}, []string{"Spec.Poolers has no write pooler"}},
		{"node without name", Spec{Nodes: []Node{{}}}, []string{"Spec.Nodes[0].Name is empty"}},
		{"bad pooler name", Spec{Poolers: []PgBouncer{{Name: "a b"}}}, []string{"Spec.Poolers[0].Name"}},
		{"a name twice", Spec{Nodes: []Node{{Name: "x"}}, Poolers: []PgBouncer{{Name: "x"}}}, []string{"Nodes[0].Name already"}},
		{"an address twice", Spec{Envoy: Envoy{Write: at("10.0.0.9:1"), Admin: at("10.0.0.9:1")}}, []string{"Spec.Envoy.Admin"}},
		{"any address", Spec{Envoy: Envoy{Read: at("0.0.0.0:5433")}}, []string{"Spec.Envoy.Read"}},
		{"no port", Spec{Nodes: []Node{{Name: "a", API: at("10.0.0.1:0")}}}, []string{"Spec.Nodes[0].API"}},
		{"a port alone", Spec{Nodes: []Node{{Name: "a", Postgres: netip.AddrPortFrom(netip.Addr{}, 5432)}}}, []string{"Spec.Nodes[0].Postgres"}},
		{"two ports for reads", Spec{Nodes: []Node{{Name: "a", Postgres: at("10.0.0.1:1")}, {Name: "b", Postgres: at("10.0.0.1:2")}}}, []string{"Nodes[1].Postgres"}},
		{"two ports without reads", Spec{
			Nodes: []Node{{Name: "a", Postgres: at("10.0.0.1:1")}, {Name: "b", Postgres: at("10.0.0.1:2")}}, Poolers: PoolersNamed(1, 0),
		}, nil},
		{"ttl", Spec{Timing: Timing{TTL: 19, LoopWait: 1, RetryTimeout: 3}}, []string{"Timing.TTL"}},
		{"loop wait", Spec{Timing: Timing{LoopWait: -1}}, []string{"Timing.LoopWait"}},
		{"retry timeout", Spec{Timing: Timing{RetryTimeout: 2}}, []string{"Timing.RetryTimeout"}},
		{"timing", Spec{Timing: Timing{TTL: 20}}, []string{"LoopWait 10 + 2*RetryTimeout 10"}},
		{"database", Spec{Database: "postgres"}, []string{"Database"}},
		{"database with a blank", Spec{Database: "my app"}, []string{"Spec.Database"}},
	} {
		t.Run(c.name, func(t *testing.T) { refuses(t, c.spec.Validate(), c.fields...) })
	}
}

func TestSpecJSON(t *testing.T) {
	if b, err := json.Marshal(Spec{}); err != nil || string(b) != "{}" {
		t.Errorf("the zero Spec is %s, %v", b, err)
	}
	full := Spec{
		Path: "/service/x", Asynchronous: true, Database: "shop", Parameters: map[string]string{"work_mem": "64MB"},
		Nodes:   []Node{{"a", netip.MustParseAddrPort("10.0.0.1:5432"), netip.MustParseAddrPort("[::1]:8008")}},
		Poolers: []PgBouncer{{"p", false, netip.MustParseAddrPort("10.0.0.1:6432")}, {Name: "q", Read: true}},
		Envoy:   Envoy{Admin: netip.MustParseAddrPort("10.0.0.1:9901")},
		Timing:  Timing{TTL: 40, LoopWait: 5, RetryTimeout: 4},
	}
	for _, s := range []Spec{full, full.WithDefaults(), Spec{}.WithDefaults()} {
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var back Spec
		if err := json.Unmarshal(b, &back); err != nil || !reflect.DeepEqual(back, s) {
			t.Errorf("%s was read back as %+v, %v", b, back, err)
		}
	}
	d := Spec{}.WithDefaults()
	if len(d.Nodes) != 3 || len(d.Poolers) != 5 || d.Poolers[2].Service() != Write || d.Poolers[3].Service() != Read || d.Path != demo {
		t.Errorf("defaults %+v", d)
	}
	if s := Service(9).String(); s != "service 9" {
		t.Errorf("service %q", s)
	}
}

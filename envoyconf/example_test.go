package envoyconf_test

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/pgconvoy/pgconvoy/envoyconf"
)

// One Envoy without a control plane, in front of two PgBouncers.
func ExampleL4_Bootstrap() {
	bootstrap, err := envoyconf.L4{}.Bootstrap(envoyconf.Fleet{
		Admin:     netip.MustParseAddrPort("127.0.0.1:9901"),
		Listeners: []envoyconf.Listener{{Service: "write", Listen: netip.MustParseAddrPort("0.0.0.0:5432")}},
		Static: map[string][]envoyconf.Endpoint{"write": {
			{Addr: netip.MustParseAddrPort("10.0.0.1:6432")},
			{Addr: netip.MustParseAddrPort("10.0.0.2:6432")},
		}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	// Write it to a file and run: envoy -c envoy.json
	fmt.Println(json.Valid(bootstrap))

	_, err = envoyconf.L4{}.Bootstrap(envoyconf.Fleet{Admin: netip.MustParseAddrPort("127.0.0.1:0")})
	fmt.Println(err)
	// Output:
	// true
	// envoyconf: Admin: 127.0.0.1:0 has no port
}

// The version tells content, not order.
func ExampleVersion() {
	a := envoyconf.Endpoint{Addr: netip.MustParseAddrPort("10.0.0.1:6432")}
	b := envoyconf.Endpoint{Addr: netip.MustParseAddrPort("10.0.0.2:6432")}
	v := envoyconf.Version([]envoyconf.Endpoint{a, b})
	fmt.Println(v == envoyconf.Version([]envoyconf.Endpoint{b, a}))
	b.Health = envoyconf.Draining
	fmt.Println(v == envoyconf.Version([]envoyconf.Endpoint{a, b}))
	// Output:
	// true
	// false
}

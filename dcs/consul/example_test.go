package consul_test

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/pgconvoy/pgconvoy/dcs/consul"
)

// A store is made of the caller's own client. Trouble with Consul is part of an element and never its end: here nobody
// serves at the address.
func ExampleNew() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client, err := api.NewClient(&api.Config{Address: "127.0.0.1:1", Token: "7c6d4e0e-5f37-4a9d-9c3b-3c4c3c4c3c4c"})
	if err != nil {
		fmt.Println(err)
		return
	}
	store := consul.New(client)
	for s, err := range store.Watch(ctx, "/service/demo") {
		if err != nil {
			fmt.Println("ended:", err)
			return
		}
		fmt.Println("known:", s.Known(), "stale:", s.Stale != nil)
		break // which ends the watch
	}
	_, err = store.Get(ctx, "service/demo")
	fmt.Println(err)
	// Output:
	// known: false stale: true
	// dcs: invalid argument: dir "service/demo" does not start with a slash
}

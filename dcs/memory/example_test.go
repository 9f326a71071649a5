package memory_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/memory"
)

// A watch yields the present content again and again. Trouble is part of an element, and the content stays.
func ExampleStore_Watch() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	store := memory.New()
	step := 0
	for s, err := range store.Watch(ctx, "/service/demo") {
		if err != nil {
			fmt.Println("ended:", err)
			return
		}
		leader, ok := s.Get("/service/demo/leader")
		fmt.Printf("known %v, leader %q %v, stale: %v\n", s.Known(), leader.Value, ok, s.Stale)
		switch step++; step {
		case 1:
			_, _ = store.Put(ctx, "/service/demo/leader", []byte("n1"), dcs.Version{})
		case 2:
			store.SetDown(errors.New("no quorum"))
		case 3:
			store.SetDown(nil)
		case 4:
			cancel()
		}
	}
	// Output:
	// known true, leader "" false, stale: <nil>
	// known true, leader "n1" true, stale: <nil>
	// known true, leader "n1" true, stale: no quorum
	// known true, leader "n1" true, stale: <nil>
	// ended: context canceled
}

// A lock is held for the length of a function. Whoever comes second learns who holds it.
func ExampleStore_lock() {
	ctx := context.Background()
	store := memory.New()
	err := dcs.Lock(ctx, store, "/pgconvoy/demo/operation", []byte("coordinator-1"),
		func(ctx context.Context, _ dcs.Writer, held dcs.Version) error {
			fmt.Println("fencing token:", held.Created)
			err := dcs.Lock(ctx, store, "/pgconvoy/demo/operation", []byte("coordinator-2"), nil)
			if refusal, ok := errors.AsType[*dcs.HeldError](err); ok {
				fmt.Printf("held by %s\n", refusal.Holder.Value)
			}
			return nil
		})
	fmt.Println(err)
	// Output:
	// fencing token: 1
	// held by coordinator-1
	// <nil>
}

// A write without an answer may have been applied or not. It is not sent again: the key tells.
func ExampleClient_Mute() {
	ctx := context.Background()
	store := &memory.Store{Timeout: 10 * time.Millisecond}
	client := store.Client()
	heal := client.Mute()
	_, err := client.Put(ctx, "/service/demo/key", []byte("1"), dcs.Version{})
	fmt.Println("unknown:", errors.Is(err, dcs.ErrUnknown))
	heal()
	s, err := client.Get(ctx, "/service/demo")
	e, ok := s.Get("/service/demo/key")
	fmt.Printf("applied: %v %q %v\n", ok, e.Value, err)
	// Output:
	// unknown: true
	// applied: true "1" <nil>
}

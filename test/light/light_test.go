package light_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"example.com/light"
	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/memory"
)

// lines hands what is written to a test.
type lines chan string

func (l lines) Write(b []byte) (int, error) {
	l <- string(b)
	return len(b), nil
}

func TestFollow(t *testing.T) {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	store := memory.New()
	out, done := make(lines, 10), make(chan error, 1)
	version, err := store.Put(ctx, "/service/demo/leader", []byte("n1"), dcs.Version{})
	if err != nil {
		t.Fatal(err)
	}
	wg.Go(func() { done <- light.Follow(ctx, store, "/service/demo", out) })
	next := func(want string) {
		t.Helper()
		select {
		case got := <-out:
			if got != want {
				t.Errorf("it printed %q, want %q", got, want)
			}
		case err := <-done:
			t.Fatalf("it ended instead of printing %q: %v", want, err)
		}
	}
	next("/service/demo is led by \"n1\"\n")
	if _, err := store.Put(ctx, "/service/demo/leader", []byte("n2"), version); err != nil {
		t.Fatal(err)
	}
	next("/service/demo is led by \"n2\"\n")
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v, want %v", err, context.Canceled)
	}
}

// TestFollowEtcd: the back end says what is wrong with its caller's client.
func TestFollowEtcd(t *testing.T) {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := light.FollowEtcd(ctx, client, "/service/demo", make(lines)); err == nil || ctx.Err() != nil {
		t.Errorf("following over a closed client ended with %v", err)
	}
}

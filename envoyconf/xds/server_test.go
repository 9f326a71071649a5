package xds_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/envoyconf"
	"github.com/pgconvoy/pgconvoy/envoyconf/internal/envoytest"
	"github.com/pgconvoy/pgconvoy/envoyconf/xds"
)

func TestSetThenApplied(t *testing.T) {
	each(t, func(t *testing.T, k clientKind) {
		s := xds.New(xds.Config{Logger: logger(t)})
		addr, _ := serve(t, s, "127.0.0.1:0")
		v := set(t, s, "write", endpoints("10.0.0.1:6432", "10.0.0.2:6432"))
		if err := s.Wait(t.Context(), "write", v); err != nil {
			t.Errorf("without an Envoy: %v", err)
		}
		c := k.dial(t, addr, "envoy-1")
		c.subscribe(nil, "write")
		m := next(t, c)
		if m.resources["write"] != 2 || len(m.resources) != 1 {
			t.Fatalf("got %+v", m)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		err := s.Wait(ctx, "write", v)
		w, ok := errors.AsType[*xds.WaitError](err)
		if !ok || len(w.Missing) != 1 || w.Missing[0] != "envoy-1" || !errors.Is(err, context.DeadlineExceeded) ||
			!strings.Contains(err.Error(), "missing: envoy-1") {
			t.Fatalf("before the answer: %v", err)
		}
		c.ack(m)
		wait(t, s, "write", v)
		e := s.Envoys()
		if len(e) != 1 || e[0].Node != "envoy-1" || e[0].Applied["write"] != v || len(e[0].Rejected) != 0 || e[0].Address == "" || e[0].Since.IsZero() {
			t.Fatalf("got %+v", e)
		}
		quiet(t, c)
	})
}

func TestSameContentIsNotPushedAgain(t *testing.T) {
	each(t, func(t *testing.T, k clientKind) {
		s := xds.New(xds.Config{})
		addr, _ := serve(t, s, "127.0.0.1:0")
		c := k.dial(t, addr, "envoy-1")
		v := set(t, s, "write", endpoints("10.0.0.1:6432", "10.0.0.2:6432"))
		c.subscribe(nil, "write")
		c.ack(next(t, c))
		wait(t, s, "write", v)
		if again := set(t, s, "write", endpoints("10.0.0.2:6432", "10.0.0.1:6432")); again != v {
			t.Errorf("other order, other version: %s, %s", again, v)
		}
		quiet(t, c)
		set(t, s, "write", nil)
		if m := next(t, c); m.resources["write"] != 0 || len(m.resources) != 1 {
			t.Errorf("got %+v", m)
		}
	})
}

func TestSubscriptionBeforeSet(t *testing.T) {
	each(t, func(t *testing.T, k clientKind) {
		s := xds.New(xds.Config{})
		addr, _ := serve(t, s, "127.0.0.1:0")
		c := k.dial(t, addr, "envoy-1")
		c.subscribe(nil, "write", "read")
		await(t, s, "subscription", func(e []envoyconf.EnvoyStatus) bool { return len(e) == 1 && len(e[0].Applied) == 2 })
		quiet(t, c)
		// One of the two is answered without the other.
		v := set(t, s, "read", endpoints("10.0.0.1:6433"))
		m := next(t, c)
		if len(m.resources) != 1 || m.resources["read"] != 1 {
			t.Fatalf("got %+v", m)
		}
		c.ack(m)
		wait(t, s, "read", v)
		if e := s.Envoys()[0]; e.Applied["read"] != v || e.Applied["write"] != "" {
			t.Errorf("got %+v", e)
		}
	})
}

func TestServiceAddedLater(t *testing.T) {
	each(t, func(t *testing.T, k clientKind) {
		s := xds.New(xds.Config{})
		addr, _ := serve(t, s, "127.0.0.1:0")
		w := set(t, s, "write", endpoints("10.0.0.1:6432"))
		r := set(t, s, "read", endpoints("10.0.0.1:6433"))
		c := k.dial(t, addr, "envoy-1")
		c.subscribe(nil, "write")
		m := next(t, c)
		c.ack(m)
		c.add("read")
		for m := next(t, c); ; m = next(t, c) {
			if _, again := m.resources["write"]; again {
				t.Error("write was sent again")
			}
			c.ack(m)
			if m.resources["read"] == 1 {
				break
			}
		}
		wait(t, s, "read", r)
		wait(t, s, "write", w)
		quiet(t, c)
	})
}

func TestRejectedIsNotSentAgain(t *testing.T) {
	each(t, func(t *testing.T, k clientKind) {
		s := xds.New(xds.Config{Logger: logger(t)})
		addr, _ := serve(t, s, "127.0.0.1:0")
		bad := set(t, s, "write", endpoints("10.0.0.1:6432"))
		r := set(t, s, "read", endpoints("10.0.0.1:6433"))
		c := k.dial(t, addr, "envoy-1")
		c.subscribe(nil, "write", "read")
		refused := false
		for range 2 { // each service once; the rejection of one does not touch the other
			if m := next(t, c); m.resources["write"] > 0 {
				if refused {
					t.Fatal("what was rejected was sent again")
				}
				refused = true
				c.nack(m, "no taste for it")
			} else {
				c.ack(m)
			}
		}
		wait(t, s, "read", r)
		quiet(t, c)
		err := s.Wait(t.Context(), "write", bad) // at once: nothing could come any more
		w, ok := errors.AsType[*xds.WaitError](err)
		if !ok || w.Rejected["envoy-1"] != "no taste for it" || len(w.Missing) != 0 || w.Err != nil ||
			!strings.Contains(err.Error(), "envoy-1 rejected it: no taste for it") {
			t.Fatalf("got %v", err)
		}
		if e := s.Envoys()[0]; e.Rejected["write"] != "no taste for it" || e.Applied["write"] != "" || e.Applied["read"] != r {
			t.Fatalf("got %+v", e)
		}
		set(t, s, "write", endpoints("10.0.0.1:6432")) // the same content
		quiet(t, c)
		set(t, s, "read", endpoints("10.0.0.2:6433")) // the other service moves on
		c.ack(next(t, c))
		quiet(t, c)
		good := set(t, s, "write", endpoints("10.0.0.2:6432")) // new content
		c.ack(next(t, c))
		wait(t, s, "write", good)
		if e := s.Envoys()[0]; len(e.Rejected) != 0 {
			t.Errorf("got %+v", e)
		}
		quiet(t, c)
	})
}

func TestReconnectIsSentOnlyWhatDiffers(t *testing.T) {
	each(t, func(t *testing.T, k clientKind) {
		first, second := xds.New(xds.Config{}), xds.New(xds.Config{})
		w := set(t, first, "write", endpoints("10.0.0.1:6432"))
		if v := set(t, second, "write", endpoints("10.0.0.1:6432")); v != w {
			t.Fatalf("two control planes, two versions: %s, %s", w, v)
		}
		set(t, second, "read", endpoints("10.0.0.1:6433"))
		addr, _ := serve(t, second, "127.0.0.1:0")
		c := k.dial(t, addr, "envoy-1")
		c.subscribe(map[string]string{"write": w, "read": "older", "gone": "x"}, "write", "read")
		wait(t, second, "write", w)
		m := next(t, c)
		if len(m.resources) != 1 || m.resources["read"] != 1 {
			t.Fatalf("got %+v", m)
		}
		c.ack(m)
		quiet(t, c)
	})
}

func TestLaterSetWinsWhileAnAnswerIsMissing(t *testing.T) {
	each(t, func(t *testing.T, k clientKind) {
		s := xds.New(xds.Config{})
		addr, _ := serve(t, s, "127.0.0.1:0")
		old := set(t, s, "write", endpoints("10.0.0.1:6432"))
		c := k.dial(t, addr, "envoy-1")
		c.subscribe(nil, "write")
		m := next(t, c)
		waiting := make(chan error, 1)
		go func() { waiting <- s.Wait(t.Context(), "write", old) }()
		set(t, s, "write", endpoints("10.0.0.1:6432", "10.0.0.2:6432"))
		v := set(t, s, "write", endpoints("10.0.0.1:6432", "10.0.0.2:6432", "10.0.0.3:6432"))
		if err := <-waiting; !errors.Is(err, xds.ErrSuperseded) {
			t.Errorf("got %v", err)
		}
		quiet(t, c)
		c.ack(m)
		m = next(t, c)
		if m.resources["write"] != 3 {
			t.Fatalf("got %+v", m)
		}
		c.ack(m)
		wait(t, s, "write", v)
		quiet(t, c)
	})
}

func TestUnsubscribedIsNotWaitedFor(t *testing.T) {
	s := xds.New(xds.Config{})
	addr, _ := serve(t, s, "127.0.0.1:0")
	c := dialSotw(t, addr, "envoy-1").(*sotwClient)
	v := set(t, s, "write", endpoints("10.0.0.1:6432"))
	set(t, s, "read", endpoints("10.0.0.1:6433"))
	c.subscribe(nil, "read")
	m := next(t, c)
	wait(t, s, "write", v)
	c.services = nil
	c.ack(m)
	await(t, s, "unsubscription", func(e []envoyconf.EnvoyStatus) bool { return len(e[0].Applied) == 0 })
	// What was dropped is sent anew when it is asked for again.
	c.add("read")
	if m := next(t, c); m.resources["read"] != 1 {
		t.Fatalf("got %+v", m)
	}
}

func TestWaitEndsWhenTheEnvoyLeaves(t *testing.T) {
	each(t, func(t *testing.T, k clientKind) {
		s := xds.New(xds.Config{})
		addr, _ := serve(t, s, "127.0.0.1:0")
		v := set(t, s, "write", endpoints("10.0.0.1:6432"))
		c := k.dial(t, addr, "envoy-1")
		c.subscribe(nil, "write")
		next(t, c)
		waiting := make(chan error, 1)
		go func() { waiting <- s.Wait(t.Context(), "write", v) }()
		c.close()
		if err := <-waiting; err != nil {
			t.Error(err)
		}
		await(t, s, "nobody", connected(0))
	})
}

func TestOtherTypesAreLeftUnanswered(t *testing.T) {
	s := xds.New(xds.Config{})
	addr, _ := serve(t, s, "127.0.0.1:0")
	v := set(t, s, "write", endpoints("10.0.0.1:6432"))
	c := dialDelta(t, addr, "envoy-1").(*deltaClient)
	c.sendType("type.googleapis.com/envoy.config.cluster.v3.Cluster")
	quiet(t, c)
	c.subscribe(nil, "write")
	c.ack(next(t, c))
	wait(t, s, "write", v)
}

func TestSetRefuses(t *testing.T) {
	s := xds.New(xds.Config{})
	v := set(t, s, "write", endpoints("10.0.0.1:6432"))
	if _, err := s.Set(t.Context(), "write", endpoints("10.0.0.1:0")); err == nil || !strings.Contains(err.Error(), "endpoint 0: Addr") {
		t.Errorf("got %v", err)
	}
	if _, err := s.Set(t.Context(), "a,b", nil); err == nil || !strings.Contains(err.Error(), "service") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Set(ctx, "write", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := s.Wait(t.Context(), "write", v); err != nil {
		t.Errorf("the refused Set changed something: %v", err)
	}
	if err := s.Wait(t.Context(), "never", "x"); !errors.Is(err, xds.ErrSuperseded) {
		t.Errorf("got %v", err)
	}
}

// Many goroutines set, wait and look, while Envoys of both kinds come, answer and go.
func TestConcurrentUse(t *testing.T) {
	s := xds.New(xds.Config{})
	addr, stop := serve(t, s, "127.0.0.1:0")
	var answering, busy sync.WaitGroup
	for i := range 6 {
		c := kinds[i%2].dial(t, addr, fmt.Sprintf("envoy-%d", i))
		c.subscribe(nil, "write", "read")
		answering.Go(func() {
			n := 0
			for m := range c.messages() {
				if n++; n%7 == 0 {
					c.nack(m, "now and then")
				} else {
					c.ack(m)
				}
			}
		})
	}
	for g := range 4 {
		busy.Go(func() {
			for i := range 100 {
				service := []string{"write", "read"}[g%2]
				v := set(t, s, service, endpoints(fmt.Sprintf("10.0.%d.%d:6432", g, i+1)))
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
				_ = s.Wait(ctx, service, v)
				cancel()
				s.Envoys()
			}
		})
	}
	busy.Wait()
	// In the end all have the last content, or rejected just that.
	for _, service := range []string{"write", "read"} {
		v := set(t, s, service, endpoints("10.9.9.9:6432"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		err := s.Wait(ctx, service, v)
		cancel()
		if w, ok := errors.AsType[*xds.WaitError](err); err != nil && (!ok || len(w.Missing) > 0) {
			t.Error(err)
		}
	}
	stop()
	answering.Wait()
	await(t, s, "nobody", connected(0))
}

// Nothing that a stream started is left when the gRPC server has stopped.
func TestNoGoroutineIsLeft(t *testing.T) {
	before := runtime.NumGoroutine()
	s := xds.New(xds.Config{})
	addr, stop := serve(t, s, "127.0.0.1:0")
	set(t, s, "write", endpoints("10.0.0.1:6432"))
	var clients []client
	for i := range 20 {
		c := kinds[i%2].dial(t, addr, fmt.Sprintf("envoy-%d", i))
		c.subscribe(nil, "write", "read")
		next(t, c) // unanswered
		clients = append(clients, c)
	}
	stop()
	envoytest.Eventually(t, 30*time.Second, "the streams to end", func() error {
		if left := stacks(); strings.Contains(left, "go-control-plane") || len(s.Envoys()) > 0 {
			return fmt.Errorf("left: %+v\n%s", s.Envoys(), left)
		}
		return nil
	})
	for _, c := range clients {
		c.close()
	}
	envoytest.Eventually(t, 30*time.Second, "all goroutines to end", func() error {
		if n := runtime.NumGoroutine(); n > before {
			return fmt.Errorf("%d goroutines before, %d after\n%s", before, n, stacks())
		}
		return nil
	})
}

func stacks() string {
	b := make([]byte, 1<<20)
	return string(b[:runtime.Stack(b, true)])
}

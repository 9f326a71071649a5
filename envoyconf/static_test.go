package envoyconf_test

import (
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/envoyconf"
	"github.com/pgconvoy/pgconvoy/envoyconf/internal/envoytest"
)

func TestStaticEnvoyServes(t *testing.T) {
	for name, ring := range map[string]bool{"epoll": false, "io_uring": true} {
		t.Run(name, func(t *testing.T) {
			envoytest.Binary(t)
			a, b := envoytest.NewBackend(t), envoytest.NewBackend(t)
			admin, listen := envoytest.Free(t), envoytest.Free(t)
			boot, err := envoyconf.L4{}.Bootstrap(envoyconf.Fleet{
				Admin:     admin,
				Listeners: []envoyconf.Listener{{Service: "write", Listen: listen}},
				Static:    map[string][]envoyconf.Endpoint{"write": {{Addr: a.Addr}, {Addr: b.Addr, Health: envoyconf.Draining}}},
				IOUring:   ring,
			})
			if err != nil {
				t.Fatal(err)
			}
			e := envoytest.Start(t, boot, admin)
			e.Ready()
			e.Healthy("write", a)
			for range 20 {
				c := envoytest.Dial(t, listen)
				got, err := c.Ask()
				if err != nil || got != a.Addr {
					t.Fatalf("got %v, %v", got, err)
				}
				c.Close()
			}
		})
	}
}

// A wrong TLS setting shows: no endpoint is ever healthy, and clients are refused at once.
func TestWrongAnswerToTheHealthCheck(t *testing.T) {
	envoytest.Binary(t)
	a := envoytest.NewBackend(t) // answers N
	admin, listen := envoytest.Free(t), envoytest.Free(t)
	boot, err := envoyconf.L4{}.Bootstrap(envoyconf.Fleet{
		Admin:     admin,
		Listeners: []envoyconf.Listener{{Service: "write", Listen: listen}},
		Static:    map[string][]envoyconf.Endpoint{"write": {{Addr: a.Addr}}},
		TLS:       true,
	})
	if err != nil {
		t.Fatal(err)
	}
	e := envoytest.Start(t, boot, admin)
	e.Ready()
	begin := time.Now()
	if got, err := envoytest.Dial(t, listen).Ask(); err == nil {
		t.Errorf("answered by %s", got)
	}
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("refused only after %v", d)
	}
}

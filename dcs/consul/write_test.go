package consul_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/leak"
	"github.com/pgconvoy/pgconvoy/internal/storetest"
)

// A write whose answer is lost was applied here, and must not be called anything but unknown.
func writeWithoutAnAnswer(t *testing.T, s *storetest.Servers) {
	large := strings.Repeat("2", 500_000)
	for name, fault := range map[string]struct {
		timeout time.Duration
		end     func(*storetest.Proxy)
		value   string
	}{
		"deadline":         {2 * time.Second, nil, "2"},
		"connection":       {time.Minute, (*storetest.Proxy).Break, "2"},
		"deadline-large":   {2 * time.Second, nil, large},
		"connection-large": {time.Minute, (*storetest.Proxy).Break, large},
	} {
		t.Run(name, func(t *testing.T) {
			p := storetest.NewProxy(t, s.Addrs()[0])
			store := connect(t, p.Addr())
			store.Timeout = fault.timeout
			f := storetest.Follow(t, connect(t, s.Addrs()[0]))
			heal := p.Mute()
			defer heal()
			failed := make(chan error, 1)
			go func() {
				_, err := store.Put(t.Context(), dir+"/"+name, []byte(fault.value), dcs.Version{})
				failed <- err
			}()
			f.Until("written", func(s dcs.Snapshot) bool {
				e, _ := s.Get(dir + "/" + name)
				return string(e.Value) == fault.value
			})
			if fault.end != nil {
				fault.end(p)
			}
			err := <-failed
			if !errors.Is(err, dcs.ErrUnknown) || !strings.HasPrefix(err.Error(), "consul: put /demo/"+name) {
				t.Errorf("the error is %v", err)
			}
			t.Log(err)
		})
	}
}

// A write is sent once, also when an agent closes a connection that was used before instead of answering.
func writeIsSentOnce(t *testing.T, s *storetest.Servers) {
	var d deserter
	store := connect(t, s.Addrs()[0], func(c *api.Config) {
		c.Transport.DialContext, c.Transport.IdleConnTimeout = d.dial, time.Minute
	})
	for name, value := range map[string]string{"small": "1", "large": strings.Repeat("1", 500_000)} {
		for _, prev := range []string{"absent", "there"} {
			t.Run(name+"/"+prev, func(t *testing.T) {
				key := name + prev
				var v dcs.Version
				if prev == "there" {
					v = storetest.Put(t, store, key, "0", v)
				}
				if _, err := store.Get(t.Context(), dir); err != nil { // a connection that was used before
					t.Fatal(err)
				}
				d.writes.Store(0)
				d.armed.Store(true)
				_, err := store.Put(t.Context(), dir+"/"+key, []byte(value), v)
				d.armed.Store(false)
				if !errors.Is(err, dcs.ErrUnknown) {
					t.Errorf("ended with %v", err)
				}
				t.Log(err)
				if n := d.writes.Load(); n != 1 {
					t.Errorf("sent %d times", n)
				}
			})
		}
	}
}

// deserter makes connections that end when a write was sent over them, and counts these.
type deserter struct {
	armed  atomic.Bool
	writes atomic.Int32
}

type deserting struct {
	net.Conn
	d *deserter
}

func (d *deserter) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	return &deserting{c, d}, err
}

func (c *deserting) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	change := bytes.Contains(p, []byte("PUT /v1/kv/")) || bytes.Contains(p, []byte(`"Verb":"set"`))
	if c.d.armed.Load() && change {
		c.d.writes.Add(1)
		_ = c.Conn.Close()
	}
	return n, err
}

// A value that no transaction takes is written all the same, compared as others are.
func largeValues(t *testing.T, s *storetest.Servers) {
	store := connect(t, s.Addrs()[0])
	for _, size := range []int{370_000, 380_000, 393_216, 400_000, dcs.MaxValue} {
		key := dir + "/k"
		value := bytes.Repeat([]byte{0xff}, size)
		v, err := store.Put(t.Context(), key, value, dcs.Version{})
		if err != nil {
			t.Fatal(err)
		}
		next, err := store.Put(t.Context(), key, value, v) // the same again is another version
		if err != nil || next.Created != v.Created || next.Modified <= v.Modified {
			t.Fatalf("from %v to %v, %v", v, next, err)
		}
		for _, wrong := range []dcs.Version{{}, v, {Created: next.Created}, {Created: next.Created - 1, Modified: next.Modified}} {
			if _, err := store.Put(t.Context(), key, value, wrong); !errors.Is(err, dcs.ErrConflict) {
				t.Errorf("%d bytes at %v, key is at %v: %v", size, wrong, next, err)
			}
		}
		snap, err := store.Get(t.Context(), dir)
		if e, _ := snap.Get(key); err != nil || e.Version != next || !bytes.Equal(e.Value, value) {
			t.Errorf("read %d bytes at %v, wrote %d at %v; %v", len(e.Value), e.Version, size, next, err)
		}
		if err := store.Delete(t.Context(), key, next); err != nil {
			t.Fatal(err)
		}
	}
}

// A plain put of a large value leaves the key to its session; the session's own puts refuse one.
func largeValueOfALease(t *testing.T, s *storetest.Servers) {
	store := connect(t, s.Addrs()[0])
	large := strings.Repeat("1", 500_000)
	err := store.Lease(t.Context(), func(ctx context.Context, w dcs.Writer) error {
		v := storetest.Put(t, w, "k", "1", dcs.Version{})
		storetest.Put(t, w, "most", strings.Repeat("1", 370_000), dcs.Version{})
		if _, err := w.Put(ctx, dir+"/k", []byte(large), v); !errors.Is(err, dcs.ErrInvalid) {
			t.Errorf("a large value for a lease: %v", err)
		}
		storetest.Put(t, store, "k", large, v)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if snap, err := store.Get(t.Context(), dir); err != nil || storetest.Content(snap) != "" {
		t.Errorf("the session has left %.100s, %v", storetest.Content(snap), err)
	}
}

// A value over a limit that was set lower is refused as not applied, whichever limit it is.
func TestValueOverTheAgentsLimit(t *testing.T) {
	leak.Check(t)
	s := storetest.Consul(t, 1, func(c map[string]any) {
		limits := c["limits"].(map[string]any)
		limits["kv_max_value_size"], limits["txn_max_req_len"] = 1000, 1000
	})
	store := connect(t, s.Addrs()[0])
	for _, size := range []int{900, 2000, 500_000} {
		_, err := store.Put(t.Context(), dir+"/k", make([]byte, size), dcs.Version{})
		if err == nil || errors.Is(err, dcs.ErrUnknown) || !strings.Contains(err.Error(), "not applied") {
			t.Errorf("%d bytes: %v", size, err)
		}
		t.Log(err)
	}
	storetest.Put(t, store, "k", "1", dcs.Version{})
}

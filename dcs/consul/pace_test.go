package consul_test

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/storetest"
)

// meter counts the requests of a client. With blind it is a proxy that loses the index on the way.
type meter struct {
	http.RoundTripper
	n     atomic.Int64
	blind bool
}

func (m *meter) RoundTrip(r *http.Request) (*http.Response, error) {
	m.n.Add(1)
	resp, err := m.RoundTripper.RoundTrip(r)
	if err == nil && m.blind {
		resp.Header.Del("X-Consul-Index")
	}
	return resp, err
}

func (m *meter) client(c *api.Config) {
	m.RoundTripper = c.Transport
	c.HttpClient = &http.Client{Transport: m}
}

// An empty directory has the index of the whole store, so each write anywhere ends its blocking query. It is not asked
// about in step with them.
func quietInABusyStore(t *testing.T, s *storetest.Servers) {
	var m meter
	f := storetest.Follow(t, connect(t, s.Addrs()[0], m.client))
	f.Until("fresh", storetest.Fresh(""))
	kv := client(t, s.Addrs()[0]).KV()
	began, before, writes := time.Now(), m.n.Load(), 0
	for ; time.Since(began) < time.Second; writes++ {
		if _, err := kv.Put(&api.KVPair{Key: "elsewhere/k", Value: []byte{byte(writes)}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	asked, took := m.n.Load()-before, time.Since(began)
	t.Logf("%d writes elsewhere, asked %d times in %v", writes, asked, took)
	if most := int64(took/(40*time.Millisecond)) + 10; asked > most {
		t.Errorf("asked %d times, more than %d", asked, most)
	}
	storetest.Put(t, connect(t, s.Addrs()[0]), "k", "1", dcs.Version{})
	f.Until("following", storetest.Fresh("k=1"))
}

// A proxy that loses the index makes blocking queries answer at once. That is no reason to ask all the time, nor to miss
// anything.
func proxyWithoutAnIndex(t *testing.T, s *storetest.Servers) {
	m := meter{blind: true}
	other := connect(t, s.Addrs()[0])
	v := storetest.Put(t, other, "k", "1", dcs.Version{})
	f := storetest.Follow(t, connect(t, s.Addrs()[0], m.client))
	f.Until("fresh", storetest.Fresh("k=1"))
	began := time.Now()
	at := f.Last.At
	f.Until("confirmed again", func(s dcs.Snapshot) bool { return s.At.Sub(at) > 2*time.Second })
	asked, took := m.n.Load(), time.Since(began)
	t.Logf("asked %d times in %v", asked, took)
	if most := int64(took/(100*time.Millisecond)) + 20; asked > most {
		t.Errorf("asked %d times, more than %d", asked, most)
	}
	storetest.Put(t, other, "k", "2", v)
	f.Until("following", storetest.Fresh("k=2"))
}

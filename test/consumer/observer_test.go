package consumer_test

import (
	"context"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/etcd"
	"github.com/pgconvoy/pgconvoy/dcs/memory"
	"github.com/pgconvoy/pgconvoy/patroni"
)

// Whoever observes needs a store that can be read, no more.
var _ dcs.Reader = (*etcd.Store)(nil)

// primary waits until a cluster has a member that calls itself the primary.
func primary(ctx context.Context, store dcs.Reader, path string) (patroni.Member, error) {
	for c, err := range patroni.Watch(ctx, store, path) {
		if err != nil {
			return patroni.Member{}, err
		}
		for _, m := range c.Members {
			if m.Name == c.Leader && m.Role == patroni.RolePrimary && m.Running() {
				return m, nil
			}
		}
	}
	return patroni.Member{}, context.Cause(ctx)
}

func TestObserver(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	store := memory.New()
	for key, value := range map[string]string{
		"leader":     "n1",
		"members/n1": `{"conn_url":"postgres://10.0.0.1:5432/postgres","state":"running","role":"primary","timeline":3}`,
		"members/n2": `{"conn_url":"postgres://10.0.0.2:5432/postgres","state":"running","role":"replica","timeline":3}`,
	} {
		if _, err := store.Put(ctx, "/service/demo/"+key, []byte(value), dcs.Version{}); err != nil {
			t.Fatal(err)
		}
	}
	m, err := primary(ctx, store, "/service/demo")
	if err != nil {
		t.Fatal(err)
	}
	if addr, err := m.Addr(); err != nil || m.Name != "n1" || addr.String() != "10.0.0.1:5432" {
		t.Errorf("the primary is %s at %v (%v), want n1 at 10.0.0.1:5432", m.Name, addr, err)
	}
}

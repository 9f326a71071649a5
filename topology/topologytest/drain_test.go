package topologytest_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgconvoy/pgconvoy/topology"
)

// TestDrain: a pooler is taken out of service through Envoy with nobody cut off, and comes back; the store has a record
// of why each pooler is where it is.
func TestDrain(t *testing.T) {
	s := shared.Start(t)
	const name = "pgb-1"
	fleet := &topology.Fleet{Path: s.Cluster().Path, Store: s.Store()}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
		defer cancel()
		if err := fleet.Admit(ctx, name); err != nil {
			t.Error(err)
		}
	})
	enter := func() (conns []*pgx.Conn) {
		for range 12 {
			conn, err := pgx.Connect(t.Context(), s.WriteDSN())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
			conns = append(conns, conn)
		}
		return conns
	}
	answer := func(who string, conns []*pgx.Conn) {
		t.Helper()
		for _, conn := range conns {
			if _, err := conn.Exec(t.Context(), "SELECT 1", pgx.QueryExecModeSimpleProtocol); err != nil {
				t.Errorf("%s: %v", who, err)
			}
		}
	}
	before := enter() // some on each pooler
	ctx, cancel := contextFor(t, 5*time.Second)
	defer cancel()
	if err := fleet.Drain(ctx, name); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "but "+name+" still has clients:") {
		t.Fatalf("drained with clients: %v", err)
	}
	after := enter()
	answer("a client from before", before)
	answer("a new client", after)
	for _, conn := range before {
		if err := conn.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	began := time.Now()
	ctx, cancel = contextFor(t, time.Minute)
	defer cancel()
	if err := fleet.Drain(ctx, name); err != nil {
		t.Fatalf("%v\n%s", err, s.View())
	}
	t.Logf("drained %s after the last client had left; %d new clients are elsewhere", time.Since(began).Round(time.Millisecond), len(after))
	answer("a new client", after)
	v := s.View()
	if p := pooler(v, name); !p.Draining || !p.Empty {
		t.Errorf("pooler %+v", p)
	}
	service := func(v topology.View) topology.ServiceView { return v.ControlPlanes[0].Services["write"] }
	if st := service(v); !slices.Equal(st.Draining, []string{name}) || len(st.Envoys) == 0 {
		t.Errorf("service %+v", st)
	}
	if err := fleet.Admit(t.Context(), name); err != nil {
		t.Error(err)
	}
	s.Await(func(v topology.View) bool {
		return !pooler(v, name).Draining && len(service(v).Draining) == 0 && len(service(v).Applied) > 0
	})

	ctx, cancel = contextFor(t, 10*time.Second)
	defer cancel()
	for e, err := range s.Observer().Events(ctx) {
		if err != nil {
			t.Fatalf("no event says how %s was routed: %v", name, err)
		}
		if t.Log(e); e.Pooler == name && e.To == topology.Routed {
			break
		}
	}
}

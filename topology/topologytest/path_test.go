package topologytest_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgconvoy/pgconvoy/topology"
	"github.com/pgconvoy/pgconvoy/topology/topologytest"
)

// TestEntryPoints: writes arrive at the primary, reads at a replica.
func TestEntryPoints(t *testing.T) {
	s := shared.Start(t)
	for _, c := range []struct {
		name, dsn string
		recovery  bool
	}{{"write", s.WriteDSN(), false}, {"read", s.ReadDSN(), true}} {
		conn, err := pgx.Connect(t.Context(), c.dsn)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		var recovery bool
		err = conn.QueryRow(t.Context(), "SELECT pg_is_in_recovery()").Scan(&recovery)
		if err != nil || recovery != c.recovery {
			t.Errorf("%s service: in recovery %t, %v; want %t", c.name, recovery, err, c.recovery)
		}
		if err := conn.Close(t.Context()); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestSwitchoverByHand: one that is typed past the coordinator is not noticed either, thanks to the before-stop hook.
func TestSwitchoverByHand(t *testing.T) {
	s := shared.Start(t)
	r := underLoad(t, s, func() {
		from, to := s.Leader(), s.Standby()
		for _, m := range s.View().Members {
			if m.Name == from {
				if err := s.Patroni().Switchover(t.Context(), m.API, from, to); err != nil {
					t.Fatal(err)
				}
			}
		}
		s.Await(func(v topology.View) bool { return topologytest.Routed(v) && v.Leadership.Member == to })
	})
	if r.Failed > 0 {
		t.Errorf("%d of %d transactions failed (%s), want 0", r.Failed, r.Sent, r.FirstError)
	}
}

// TestRefused: a refusal says what is wrong.
func TestRefused(t *testing.T) {
	s := shared.Start(t)
	primary := s.Leader()
	_, err := s.Do(t.Context(), topology.Switchover{To: primary})
	if refused, ok := errors.AsType[*topology.RefusedError](err); !ok || !strings.Contains(err.Error(), primary+" is the primary already") {
		t.Errorf("switchover to the primary: %v %v, want a refusal that says so", err, refused)
	}
}

// TestReset: a shared stack is as good as new for the next test.
func TestReset(t *testing.T) {
	var leader string
	t.Run("first", func(t *testing.T) {
		s := shared.Start(t)
		for _, sql := range []string{"CREATE TABLE mine (x int)", "CREATE SCHEMA my", "CREATE TYPE my.kind AS ENUM ('a')"} {
			if err := query(t, s.WriteDSN(), sql); err != nil {
				t.Fatal(err)
			}
		}
		s.Kill("pgb-1")
		s.Freeze("pgb-2/agent")
		s.Cut("envoy", "cp-1")
		conn, err := pgx.Connect(t.Context(), s.WriteDSN()) // and forgets it, with a lock
		if err != nil {
			t.Fatal(err)
		}
		for _, sql := range []string{"BEGIN", "LOCK TABLE mine"} {
			if _, err := conn.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
		}
		leader = s.Leader()
	})
	t.Run("second", func(t *testing.T) {
		s := shared.Start(t)
		if now := s.Leader(); now != leader {
			t.Errorf("%s leads, not %s: another stack", now, leader)
		}
		s.Await(s.Whole)
		for _, sql := range []string{"CREATE TABLE mine (x int)", "CREATE SCHEMA my", "CREATE TYPE my.kind AS ENUM ('a')"} {
			if err := query(t, s.WriteDSN(), sql); err != nil {
				t.Error(err)
			}
		}
	})
}

//go:build linux

package patroni_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/memory"
	"github.com/pgconvoy/pgconvoy/patroni"
)

// A replica that streams and does not replay answers reads from the past.
func TestAReplicaWhoseReplayIsPaused(t *testing.T) {
	noGoroutines(t)
	pg := newPostgres(t)
	sb := pg.standby()
	store := memory.New()
	for key, value := range map[string]string{
		"leader":     "n1",
		"members/n1": fmt.Sprintf(`{"conn_url":"postgres://%s/postgres"}`, pg.addr),
		"members/n2": fmt.Sprintf(`{"conn_url":"postgres://%s/postgres"}`, sb.addr),
	} {
		if _, err := store.Put(t.Context(), path+"/"+key, []byte(value), dcs.Version{}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const most = time.Second
	source := &patroni.Source{Store: store, Path: path, Prober: &patroni.SQL{Connect: pg.connector()}, Replicas: true, MaxLag: most}
	levels, wait := dcs.Latest(source.Watch(ctx))
	until := func(what string, is func(patroni.Replica) bool) patroni.Replica {
		t.Helper()
		var last patroni.Leadership
		for l := range levels {
			if last = l; len(l.Replicas) == 1 && is(l.Replicas[0]) {
				return l.Replicas[0]
			}
		}
		t.Fatalf("not within a minute: %s; last %+v", what, last)
		return patroni.Replica{}
	}
	fresh := func(r patroni.Replica) bool { return r.Fresh }
	late := func(r patroni.Replica) bool { return !r.Fresh }

	until("fresh", fresh)
	sb.must("SELECT pg_wal_replay_pause()")
	await(t, "paused", func() bool { return sb.must("SELECT pg_get_wal_replay_pause_state()") == "paused" })
	begin := time.Now()
	pg.must("SELECT pg_logical_emit_message(true, 'test', repeat('x', 1000))")
	pg.must("SELECT pg_switch_wal()") // flushed, so that a position that stays behind is one of replay
	written := pg.position("pg_current_wal_lsn()")
	r := until("not fresh", late)
	if r.Proof.Err != nil || r.Proof.Timeline != 1 || r.Lag < most || r.Proof.LSN >= written {
		t.Errorf("%+v", r)
	}
	t.Logf("not fresh %v after the write, %v behind, %v allowed", time.Since(begin), r.Lag, most)
	if got := sb.position("pg_last_wal_receive_lsn()"); got <= r.Proof.LSN {
		t.Errorf("received up to %d, replayed up to %d: it does not stream", got, r.Proof.LSN)
	}
	sb.must("SELECT pg_wal_replay_resume()")
	r = until("fresh again", fresh)
	t.Logf("fresh again at %d of %d", r.Proof.LSN, written)
	cancel()
	_ = wait() // the end of ctx
	sb.kill()
}

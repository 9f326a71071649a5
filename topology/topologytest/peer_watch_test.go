package topologytest_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgconvoy/pgconvoy/topology/topologytest"
)

// opening is when a node began to take writes, seen past everything that is between it and its clients.
type opening struct {
	node     string
	refused  time.Time // its last answer as a standby
	accepted time.Time // its first acknowledgement of a write
}

const lookEvery = 2 * time.Millisecond

// watchReplicas looks at all nodes but the primary, each over a connection that is there before it is needed. The
// result waits for the first of them that takes a write; without one it fails the benchmark.
func watchReplicas(b *testing.B, s *topologytest.Stack, primary string) (opened func() opening) {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(b.Context()), 2*time.Minute)
	var watching sync.WaitGroup
	end := func() {
		cancel()
		watching.Wait()
	}
	b.Cleanup(end)
	found := make(chan opening, len(s.Spec().Nodes))
	for _, n := range s.Spec().Nodes {
		if n.Name == primary {
			continue
		}
		config, err := pgx.ParseConfig(s.SuperuserDSN(n.Name))
		if err != nil {
			b.Fatal("the DSN of a node cannot be parsed") // it is not shown: it holds a password
		}
		config.RuntimeParams["synchronous_commit"] = "local" // whether it takes writes, not whether a standby confirms them
		conn, err := pgx.ConnectConfig(ctx, config)
		if err != nil {
			b.Fatal(err)
		}
		watching.Go(func() {
			defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
			if o, err := watchReplica(ctx, conn); err == nil {
				o.node = n.Name
				found <- o
			} else if ctx.Err() == nil {
				b.Errorf("watching %s: %v", n.Name, err)
			}
		})
	}
	return func() opening {
		b.Helper()
		defer end()
		select {
		case o := <-found:
			return o
		case <-ctx.Done():
			b.Fatal("no replica has taken a write")
			return opening{}
		}
	}
}

// watchReplica returns when a standby has taken a write.
func watchReplica(ctx context.Context, conn *pgx.Conn) (o opening, err error) {
	for tick := time.NewTicker(lookEvery); ; {
		standby := true
		if err = conn.QueryRow(ctx, "select pg_is_in_recovery()").Scan(&standby); err != nil {
			tick.Stop()
			return o, err
		}
		if !standby {
			tick.Stop()
			break
		}
		o.refused = time.Now()
		select {
		case <-ctx.Done():
			tick.Stop()
			return o, ctx.Err()
		case <-tick.C:
		}
	}
	if o.refused.IsZero() {
		return o, errors.New("it was no standby at all")
	}
	// A commit with a record of its own in the log, and no row anywhere.
	_, err = conn.Exec(ctx, "select pg_logical_emit_message(true, 'pgconvoy', '')")
	o.accepted = time.Now()
	return o, err
}

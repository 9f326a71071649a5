//go:build linux

package patroni_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pgconvoy/pgconvoy/dcs/embedded"
)

// The namespace of the clusters in the benchmark.
const scaleNamespace = "/service"

// serveScale runs an etcd, writes clusters into it, and makes traffic as it is asked to.
func serveScale(t *testing.T, in *json.Decoder, out *json.Encoder) {
	s, err := embedded.Start(t.Context(), embedded.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	var r request
	if err := in.Decode(&r); err != nil {
		t.Fatal(err)
	}
	n := r.Clusters
	begin := time.Now()
	bytes, err := loadClusters(t.Context(), s.Client(), n)
	if err != nil {
		t.Fatal(err)
	}
	if err := out.Encode(load{Endpoint: s.Endpoint(), Bytes: bytes, Took: time.Since(begin)}); err != nil {
		t.Fatal(err)
	}
	for in.Decode(&r) == nil {
		tr, err := makeTraffic(t.Context(), s.Client(), n, r.For)
		if err != nil {
			t.Fatal(err)
		}
		if err := out.Encode(tr); err != nil {
			t.Fatal(err)
		}
	}
}

func scalePath(i int) string { return fmt.Sprintf("%s/production-%05d", scaleNamespace, i) }

// writers run at a time.
const writers = 8

func loadClusters(ctx context.Context, c *clientv3.Client, n int) (bytes int, err error) {
	var total atomic.Int64
	err = inParallel(func(w int) error {
		var ops []clientv3.Op
		for i := w; i < n; i += writers {
			for key, value := range clusterKeys(i) {
				total.Add(int64(len(key) + len(value)))
				ops = append(ops, clientv3.OpPut(key, value))
			}
			if len(ops) > 100 || i+writers >= n {
				if _, err := c.Txn(ctx).Then(ops...).Commit(); err != nil {
					return err
				}
				ops = nil
			}
		}
		return nil
	})
	return int(total.Load()), err
}

// clusterKeys are a cluster of three members as Patroni 4 writes it.
func clusterKeys(i int) map[string]string {
	path := scalePath(i)
	keys := map[string]string{
		path + "/initialize": fmt.Sprint(7268616322854375442 + uint64(i)),
		path + "/leader":     "node-1",
		path + "/config": `{"ttl":30,"loop_wait":10,"retry_timeout":10,"maximum_lag_on_failover":1048576,"synchronous_mode":true,` +
			`"failsafe_mode":true,"postgresql":{"use_pg_rewind":true,"use_slots":true,"parameters":{"max_connections":200,"wal_level":"replica",` +
			`"hot_standby":"on","max_wal_senders":10,"max_replication_slots":10,"wal_log_hints":"on","archive_mode":"on","archive_timeout":1800}}}`,
		path + "/history": `[[1,25623960,"no recovery target specified","2026-05-01T10:00:00.123456+00:00","node-2"],` +
			`[2,67419584,"no recovery target specified","2026-06-11T03:12:45.654321+00:00","node-1"]]`,
		path + "/sync": `{"leader":"node-1","quorum":0,"sync_standby":"node-2"}`,
	}
	key, value := heartbeat(i, 0, 67419584)
	keys[key] = value
	for m := range 3 {
		key, value := heartbeat(i, m+1, 67419584)
		keys[key] = value
	}
	return keys
}

// heartbeat is what a cluster writes in each loop: its status (0), and each of its members (1 to 3).
func heartbeat(i, m, lsn int) (key, value string) {
	if m == 0 {
		return scalePath(i) + "/status", fmt.Sprintf(`{"optime":%d,"slots":{"node_2":%d,"node_3":%d,"node_1":%d},`+
			`"retain_slots":["node_1","node_2","node_3"]}`, lsn, lsn, lsn-168, lsn)
	}
	role := `"role":"replica","replication_state":"streaming","receive_lsn":` + fmt.Sprint(lsn) + `,"replay_lsn":` + fmt.Sprint(lsn)
	if m == 1 {
		role = `"role":"primary"`
	}
	ip := fmt.Sprintf("10.%d.%d.%d", i>>8&0xff, i&0xff, m)
	return fmt.Sprintf("%s/members/node-%d", scalePath(i), m),
		fmt.Sprintf(`{"conn_url":"postgres://%s:5432/postgres","api_url":"http://%s:8008/patroni","state":"running",%s,`+
			`"version":"4.1.5","tags":{"clonefrom":true},"xlog_location":%d,"timeline":3}`, ip, ip, role, lsn)
}

// makeTraffic writes every heartbeat once in ten seconds, and changes leaders: the key goes, and comes with another
// member's name. What is late is not left out, so the answer has the rates that came about.
func makeTraffic(ctx context.Context, c *clientv3.Client, n int, d time.Duration) (traffic, error) {
	t := traffic{Sent: map[uint64]int64{}}
	var mu sync.Mutex // guards t
	begin := time.Now()
	var changing sync.WaitGroup
	var changeErr error
	changing.Go(func() {
		changeErr = paced(changesPerSec, begin, d, func(k int) error {
			key := scalePath(k%n) + "/leader"
			if _, err := c.Delete(ctx, key); err != nil {
				return err
			}
			sent := time.Now().UnixNano()
			resp, err := c.Put(ctx, key, fmt.Sprintf("node-%d", 1+k/n%3))
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			t.Changes++
			t.Sent[uint64(resp.Header.GetRevision())] = sent
			return nil
		})
	})
	err := paced(n*4/10, begin, d, func(k int) error {
		key, value := heartbeat(k%n, k/n%4, 67419584+k)
		if _, err := c.Put(ctx, key, value); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		t.Heartbeats++
		return nil
	})
	changing.Wait()
	t.Took = time.Since(begin)
	return t, errors.Join(err, changeErr)
}

// paced does something so many times in a second, for d. The kth is due at its time, and waits for a free writer.
func paced(perSecond int, begin time.Time, d time.Duration, do func(k int) error) error {
	return inParallel(func(w int) error {
		for k := w; ; k += writers {
			due := begin.Add(time.Duration(k) * time.Second / time.Duration(perSecond))
			time.Sleep(time.Until(due))
			if time.Since(begin) > d {
				return nil
			}
			if err := do(k); err != nil {
				return err
			}
		}
	})
}

func inParallel(do func(w int) error) error {
	errs := make([]error, writers)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() { errs[w] = do(w) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

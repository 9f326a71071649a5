package etcd

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pgconvoy/pgconvoy/dcs"
)

const (
	// Keys of one answer, with their values and without: what is large must not hold up the events on the same connection.
	// Yet for each page a server walks through all that follows, to count it, so pages should not be many.
	page, keysPage = 5_000, 10_000
	// Keys that are read one by one in a transaction; a server allows 128 unless it was told otherwise.
	perTxn = 100
)

// content is a directory as of one revision: entries, or snap where only what differs from something known was read.
type content struct {
	at       time.Time // before it was asked for
	store    uint64    // the etcd cluster whose revision it is
	revision int64
	large    bool // it has several pages
	entries  []dcs.Entry
	snap     dcs.Snapshot
}

// read reads all of dir. answered is called at each sign of life.
func (s *Store) read(ctx context.Context, dir string, answered func()) (content, error) {
	var c content
	for kvs, err := range s.pages(ctx, dir, page, &c, answered) {
		if err != nil {
			return c, err
		}
		c.entries = slices.Grow(c.entries, len(kvs))
		for _, kv := range kvs {
			c.entries = append(c.entries, entry(kv))
		}
	}
	return c, nil
}

// known is what a watch has of a directory.
type known struct {
	store uint64
	seen  int64 // the store was at this revision
	snap  dcs.Snapshot
}

// confirm reads what differs from k. It lists the keys with their versions, which is linearizable as every read and
// moves no values (from 3.7 on the server looks at its index alone); then it reads those that k has not at that version.
// So it finds also what an event should have told and did not. If too much differs, or the versions are of another
// history, it reads everything.
func (s *Store) confirm(ctx context.Context, dir string, k known, answered func()) (content, error) {
	c := content{snap: k.snap}
	var missing []string
	next, stop := iter.Pull(k.snap.All(dir))
	defer stop()
	have, ok := next()
	for kvs, err := range s.pages(ctx, dir, keysPage, &c, answered, clientv3.WithKeysOnly()) {
		if err != nil {
			return c, err
		}
		if c.store != k.store || c.revision < k.seen {
			return s.read(ctx, dir, answered)
		}
		for _, kv := range kvs {
			for ; ok && have.Key < string(kv.Key); have, ok = next() {
				c.snap = c.snap.Without(have.Key)
			}
			same := ok && have.Key == string(kv.Key)
			if !same || have.Version != version(kv) {
				missing = append(missing, string(kv.Key))
			}
			if same {
				have, ok = next()
			}
		}
		if len(missing) > page {
			return s.read(ctx, dir, answered)
		}
	}
	for ; ok; have, ok = next() {
		c.snap = c.snap.Without(have.Key)
	}
	for keys := range slices.Chunk(missing, perTxn) {
		kvs, err := s.fetch(ctx, keys, c.revision)
		if errors.Is(err, rpctypes.ErrCompacted) || errors.Is(err, rpctypes.ErrTooManyOps) { // meanwhile; for this server
			return s.read(ctx, dir, answered)
		}
		if err != nil {
			return c, fmt.Errorf("etcd: read %s: %w%s", dir, because(ctx, err), s.connection())
		}
		answered()
		for _, kv := range kvs {
			c.snap = c.snap.With(entry(kv))
		}
	}
	c.snap.At, c.snap.Stale = c.at, nil
	return c, nil
}

// pages reads what is below dir, sorted, size keys at a time and all as of one revision, which it writes into c before
// the first page.
func (s *Store) pages(
	ctx context.Context, dir string, size int64, c *content, answered func(), opts ...clientv3.OpOption,
) iter.Seq2[[]*mvccpb.KeyValue, error] {
	return func(yield func([]*mvccpb.KeyValue, error) bool) {
		from := dcs.Prefix(dir)
		opts := append(opts, clientv3.WithRange(clientv3.GetPrefixRangeEnd(from)), clientv3.WithLimit(size))
		c.at = time.Now()
		for {
			resp, err := s.get(ctx, from, append(opts, clientv3.WithRev(c.revision))...)
			if err != nil {
				yield(nil, fmt.Errorf("etcd: read %s: %w%s", dir, err, s.connection()))
				return
			}
			answered()
			if c.revision == 0 {
				c.store, c.revision, c.large = resp.Header.GetClusterId(), resp.Header.GetRevision(), resp.More
			}
			if !yield(resp.Kvs, nil) || !resp.More {
				return
			}
			from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
		}
	}
}

func (s *Store) get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	resp, err := s.kv.Get(ctx, key, opts...)
	if err != nil {
		return nil, because(ctx, err)
	}
	return resp, nil
}

// fetch reads keys as of a revision.
func (s *Store) fetch(ctx context.Context, keys []string, revision int64) ([]*mvccpb.KeyValue, error) {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	ops := make([]clientv3.Op, len(keys))
	for i, key := range keys {
		ops[i] = clientv3.OpGet(key, clientv3.WithRev(revision))
	}
	resp, err := s.kv.Txn(ctx).Then(ops...).Commit()
	if err != nil {
		return nil, because(ctx, err)
	}
	var kvs []*mvccpb.KeyValue
	for _, r := range resp.Responses {
		kvs = append(kvs, r.GetResponseRange().GetKvs()...)
	}
	return kvs, nil
}

func entry(kv *mvccpb.KeyValue) dcs.Entry {
	return dcs.Entry{Key: string(kv.Key), Value: kv.Value, Version: version(kv)}
}

func version(kv *mvccpb.KeyValue) dcs.Version {
	return dcs.Version{Created: uint64(kv.CreateRevision), Modified: uint64(kv.ModRevision)}
}

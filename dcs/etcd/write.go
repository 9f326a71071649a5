package etcd

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// Put implements [dcs.Writer]: one transaction, sent once.
func (s *Store) Put(ctx context.Context, key string, value []byte, prev dcs.Version) (dcs.Version, error) {
	var opts []clientv3.OpOption
	if prev != (dcs.Version{}) {
		opts = append(opts, clientv3.WithIgnoreLease()) // a put without a lease would make the key permanent
	}
	return s.put(ctx, key, value, prev, opts...)
}

func (s *Store) put(ctx context.Context, key string, value []byte, prev dcs.Version, opts ...clientv3.OpOption) (dcs.Version, error) {
	if err := dcs.CheckValue(key, value); err != nil {
		return dcs.Version{}, err
	}
	rev, err := s.commit(ctx, "put", key, prev, clientv3.OpPut(key, string(value), opts...))
	if err != nil {
		return dcs.Version{}, err
	}
	next := dcs.Version{Created: prev.Created, Modified: uint64(rev)}
	if prev == (dcs.Version{}) {
		next.Created = next.Modified
	}
	return next, nil
}

// Delete implements [dcs.Writer]: one transaction, sent once.
func (s *Store) Delete(ctx context.Context, key string, prev dcs.Version) error {
	if prev == (dcs.Version{}) {
		if err := dcs.CheckKey("key", key); err != nil {
			return err
		}
		return fmt.Errorf("etcd: delete %s: not applied: %w: it cannot be absent and deleted", key, dcs.ErrConflict)
	}
	_, err := s.commit(ctx, "delete", key, prev, clientv3.OpDelete(key))
	return err
}

// commit applies op if key is at version prev, and returns the revision of the change.
func (s *Store) commit(ctx context.Context, op, key string, prev dcs.Version, then clientv3.Op) (int64, error) {
	if err := dcs.CheckKey("key", key); err != nil {
		return 0, err
	}
	if err := context.Cause(ctx); err != nil {
		return 0, fmt.Errorf("etcd: %s %s: not applied: %w", op, key, err)
	}
	ctx, cancel := s.bound(ctx)
	defer cancel()
	resp, err := s.kv.Txn(ctx).If(
		clientv3.Compare(clientv3.CreateRevision(key), "=", int64(prev.Created)),
		clientv3.Compare(clientv3.ModRevision(key), "=", int64(prev.Modified)),
	).Then(then).Commit()
	switch {
	case err != nil:
		return 0, s.writeError(op, key, because(ctx, err))
	case !resp.Succeeded:
		return 0, fmt.Errorf("etcd: %s %s: not applied: %w", op, key, dcs.ErrConflict)
	}
	return resp.Header.GetRevision(), nil
}

package etcd

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/pgconvoy/pgconvoy/dcs"
)

var _ dcs.Revoker = (*Store)(nil)

// Revoke implements [dcs.Revoker]: one transaction compares the key and reads its lease, then exactly that lease is revoked.
// What happens in between is harmless: a key that went to another lease meanwhile stays, and a lease is never somebody
// else's later, since its number is not given twice. The one who can lose by it is the holder itself, if it wrote the key
// in between: the claim that it wrote for is over.
//
// Needs readwrite on every key of that lease: of a Patroni node that is its leader key and its member key.
func (s *Store) Revoke(ctx context.Context, key string, value []byte, v dcs.Version) error {
	if err := dcs.CheckKey("key", key); err != nil {
		return err
	}
	failed := func(err error) error { return fmt.Errorf("etcd: revoke the lease of %s: not applied: %w", key, err) }
	if err := context.Cause(ctx); err != nil {
		return failed(err)
	}
	ctx, cancel := s.bound(ctx)
	defer cancel()
	resp, err := s.kv.Txn(ctx).If(
		clientv3.Compare(clientv3.CreateRevision(key), "=", int64(v.Created)),
		clientv3.Compare(clientv3.ModRevision(key), "=", int64(v.Modified)),
		clientv3.Compare(clientv3.Value(key), "=", string(value)),
	).Then(clientv3.OpGet(key)).Commit() // with its value: of keys alone a server of 3.7 tells no lease
	if err != nil { // it only read
		return fmt.Errorf("%w%s", failed(because(ctx, err)), s.connection())
	}
	if !resp.Succeeded {
		return failed(dcs.ErrConflict)
	}
	kvs := resp.Responses[0].GetResponseRange().GetKvs()
	if len(kvs) == 0 {
		return failed(dcs.ErrConflict)
	}
	id := clientv3.LeaseID(kvs[0].Lease)
	if id == clientv3.NoLease {
		return failed(errors.New("the key belongs to no lease"))
	}
	_, err = s.lease.Revoke(ctx, id)
	if err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) { // else it is over: the client may have asked twice
		return s.writeError("revoke the lease of", key, because(ctx, err))
	}
	return nil
}

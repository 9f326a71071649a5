package consul

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/dcs/internal/retry"
)

// lockDelayPause is how often it is tried whether a lock-delay is over.
const lockDelayPause = 100 * time.Millisecond

// Put implements [dcs.Writer]: one transaction, sent once. A value that is too large for a transaction is written
// without one, and its version is then found by a read.
func (s *Store) Put(ctx context.Context, key string, value []byte, prev dcs.Version) (dcs.Version, error) {
	return s.put(ctx, change{key: key, value: value, prev: prev})
}

func (s *Store) put(ctx context.Context, c change) (dcs.Version, error) {
	if err := c.check(ctx); err != nil {
		return dcs.Version{}, err
	}
	c.flags = 1 + rand.Uint64N(1<<53-1) // a larger one would be rounded in a browser
	ctx, cancel := s.bound(ctx)
	defer cancel()
	owner, err := s.owner(ctx, c)
	if err != nil {
		return dcs.Version{}, err
	}
	if c.large() {
		return s.putLarge(ctx, c)
	}
	for {
		results, err := s.transact(ctx, c, owner)
		if errors.Is(err, errLockDelay) { // Consul said no: it may be asked again
			if retry.Wait(ctx, lockDelayPause) {
				continue
			}
			err = because(ctx, err)
		}
		if err != nil {
			return dcs.Version{}, err
		}
		v, err := c.written(results)
		if err != nil {
			err = c.unknown(err)
		}
		return v, err
	}
}

// Delete implements [dcs.Writer]: one transaction, sent once.
func (s *Store) Delete(ctx context.Context, key string, prev dcs.Version) error {
	c := change{key: key, prev: prev, remove: true}
	if err := c.check(ctx); err != nil {
		return err
	}
	if prev == (dcs.Version{}) {
		return c.refused(fmt.Errorf("%w: it cannot be absent and deleted", dcs.ErrConflict))
	}
	ctx, cancel := s.bound(ctx)
	defer cancel()
	owner, err := s.owner(ctx, c)
	if err == nil {
		_, err = s.transact(ctx, c, owner)
	}
	return err
}

// owner reads the key that is to be changed, since no transaction compares when a key was created, and returns the
// session that owns it at version prev. If it is at another version by now, the transaction will be rolled back.
func (s *Store) owner(ctx context.Context, c change) (session string, err error) {
	if c.prev == (dcs.Version{}) {
		return "", nil
	}
	p, err := s.one(ctx, c.key)
	switch {
	case err != nil:
		return "", c.refused(err)
	case p == nil || p.ModifyIndex != c.prev.Modified:
		return "", nil
	case p.CreateIndex != c.prev.Created:
		return "", c.refused(fmt.Errorf("%w: it was created at %d, not at %d", dcs.ErrConflict, p.CreateIndex, c.prev.Created))
	}
	return p.Session, nil
}

// one reads one key; nil: it does not exist, or the token may not see it. It is a transaction because the key endpoint
// refuses some names.
func (s *Store) one(ctx context.Context, key string) (*api.KVPair, error) {
	op := &api.KVTxnOp{Verb: api.KVGet, Key: path(key), Namespace: s.Namespace, Partition: s.Partition}
	q := &api.QueryOptions{RequireConsistent: true}
	ok, resp, _, err := s.client.Txn().Txn(api.TxnOps{{KV: op}}, q.WithContext(ctx))
	if err != nil {
		if body, ok := strings.CutPrefix(err.Error(), "Failed request: "); ok && // the client drops the status
			(strings.HasPrefix(body, "ACL not found") || strings.HasPrefix(body, "Permission denied")) {
			return nil, fmt.Errorf("%w: %s", errDenied, body)
		}
		return nil, because(ctx, err)
	}
	if !ok || len(resp.Results) == 0 || resp.Results[0] == nil {
		return nil, nil
	}
	return resp.Results[0].KV, nil
}

// transact makes one change, and sends it once: net/http repeats a PUT only if nothing of it was written.
func (s *Store) transact(ctx context.Context, c change, owner string) (api.TxnResults, error) {
	ops := c.ops(owner)
	for _, op := range ops {
		op.KV.Namespace, op.KV.Partition = s.Namespace, s.Partition
	}
	var resp api.TxnResponse
	_, err := s.client.Raw().Write("/v1/txn", ops, &resp, new(api.WriteOptions).WithContext(ctx))
	if why := c.rolledBack(err); why != nil {
		return nil, c.refused(why)
	}
	if err != nil {
		return nil, c.failed(because(ctx, err))
	}
	return resp.Results, nil
}

// putLarge writes a value that does not fit into a transaction. The answer is but yes or no.
func (s *Store) putLarge(ctx context.Context, c change) (dcs.Version, error) {
	p := &api.KVPair{Key: path(c.key), Value: c.value, Flags: c.flags, ModifyIndex: c.prev.Modified}
	ok, _, err := s.client.KV().CAS(p, new(api.WriteOptions).WithContext(ctx))
	switch {
	case err != nil:
		return dcs.Version{}, c.failed(because(ctx, err))
	case !ok:
		return dcs.Version{}, c.refused(dcs.ErrConflict)
	}
	p, err = s.one(ctx, c.key)
	switch {
	case err != nil:
		return dcs.Version{}, c.unknown(fmt.Errorf("it was applied, but its version could not be read: %w", err))
	case p == nil || p.Flags != c.flags:
		return dcs.Version{}, c.unknown(errors.New("it was applied, and replaced before its version was read"))
	}
	return dcs.Version{Created: p.CreateIndex, Modified: p.ModifyIndex}, nil
}

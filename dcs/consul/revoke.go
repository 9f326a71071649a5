package consul

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/consul/api"

	"github.com/pgconvoy/pgconvoy/dcs"
)

var _ dcs.Revoker = (*Store)(nil)

// Revoke implements [dcs.Revoker]: a consistent read compares the key, then exactly the session that owned it is destroyed.
// Consul cannot do both in one step. What happens in between is harmless to all but the holder: a key that went to another
// session meanwhile stays with it, and a session's number is not given twice. A holder that let the key go and took it
// again by the same session in between loses it; its session is gone, which it is told at its next renewal.
//
// After it Consul gives the key to nobody for the session's lock-delay: Patroni's have one of a millisecond.
//
// Needs, besides the right to read the key:
//
//	session_prefix "" { policy = "write" } # or session "<name of the node that the session belongs to>"
func (s *Store) Revoke(ctx context.Context, key string, value []byte, v dcs.Version) error {
	if err := dcs.CheckKey("key", key); err != nil {
		return err
	}
	failed := func(err error) error { return fmt.Errorf("consul: revoke the lease of %s: not applied: %w", key, err) }
	if err := context.Cause(ctx); err != nil {
		return failed(err)
	}
	ctx, cancel := s.bound(ctx)
	defer cancel()
	switch p, err := s.one(ctx, key); {
	case err != nil:
		return fmt.Errorf("%w%s", failed(err), hint(err, "key", path(key), "read"))
	case p == nil, p.CreateIndex != v.Created, p.ModifyIndex != v.Modified, !bytes.Equal(p.Value, value):
		return failed(dcs.ErrConflict)
	case p.Session == "":
		return failed(errors.New("the key belongs to no session"))
	default:
		return s.destroy(ctx, key, p.Session)
	}
}

// destroy ends a session, and sends that once.
func (s *Store) destroy(ctx context.Context, key, session string) error {
	_, err := s.client.Session().Destroy(session, new(api.WriteOptions).WithContext(ctx))
	if err == nil {
		return nil
	}
	err = because(ctx, err)
	if refused(err) {
		return fmt.Errorf("consul: revoke the lease of %s: not applied: %w%s", key, err, hint(err, "session_prefix", "", "write"))
	}
	return fmt.Errorf("consul: revoke the lease of %s: %w: %w", key, dcs.ErrUnknown, err)
}

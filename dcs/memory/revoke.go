package memory

import (
	"bytes"
	"context"
	"errors"

	"github.com/pgconvoy/pgconvoy/dcs"
)

var (
	_ dcs.Revoker = (*Store)(nil)
	_ dcs.Revoker = (*Client)(nil)
)

// Revoke implements [dcs.Revoker].
func (s *Store) Revoke(ctx context.Context, key string, value []byte, v dcs.Version) error {
	return s.Client().Revoke(ctx, key, value, v)
}

// Revoke implements [dcs.Revoker]: at one moment.
func (c *Client) Revoke(ctx context.Context, key string, value []byte, v dcs.Version) error {
	value = bytes.Clone(value)
	return c.write(ctx, "revoke the lease of", key, func() error { return c.s.revoke(key, value, v) })
}

func (s *Store) revoke(key string, value []byte, v dcs.Version) error {
	e, err := s.at(key, v)
	switch {
	case err != nil:
		return err
	case v == (dcs.Version{}) || !bytes.Equal(e.Value, value):
		return dcs.ErrConflict
	case e.lease == 0:
		return errors.New("the key belongs to no lease")
	}
	s.end(e.lease)
	return nil
}

package zookeeper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/go-zookeeper/zk"

	"github.com/pgconvoy/pgconvoy/dcs"
)

// Put implements [dcs.Writer]: a synced look at the key, then one transaction. Parents that are missing are made before.
func (s *Store) Put(ctx context.Context, key string, value []byte, prev dcs.Version) (dcs.Version, error) {
	return s.put(ctx, key, value, prev, nil)
}

// put writes a key; with an owner, one that belongs to its lease.
func (s *Store) put(ctx context.Context, key string, value []byte, prev dcs.Version, o *owner) (dcs.Version, error) {
	if err := cmp.Or(s.check("key", key), dcs.CheckValue(key, value)); err != nil {
		return dcs.Version{}, err
	}
	ctx, cancel := s.bound(ctx)
	defer cancel()
	value = append([]byte{}, value...) // the caller's, while a call may be left behind; and never null
	v, err := s.write(ctx, key, value, prev, o)
	if errors.Is(err, dcs.ErrUnknown) && len(value) > 64<<10 {
		err = fmt.Errorf("%w; the value has %d bytes: if it fails every time, check the servers' jute.maxbuffer", err, len(value))
	}
	return v, err
}

func (s *Store) write(ctx context.Context, key string, value []byte, prev dcs.Version, o *owner) (dcs.Version, error) {
	if prev == (dcs.Version{}) {
		return s.create(ctx, key, value, o)
	}
	seen, err := s.look(ctx, key)
	switch {
	case err != nil:
		return dcs.Version{}, s.writeError("put", key, err)
	case seen.Stat == nil || version(seen.Stat) != prev:
		return dcs.Version{}, s.conflict("put", key)
	case o != nil && !o.has(key, seen.Stat):
		return s.take(ctx, key, value, seen, o)
	}
	return s.set(ctx, key, value, seen)
}

// create makes a node, or writes a key over one that only holds others.
func (s *Store) create(ctx context.Context, key string, value []byte, o *owner) (dcs.Version, error) {
	v, err := s.change(ctx, key, value, o, nil)
	if errors.Is(err, zk.ErrNoNode) {
		if err := s.makeParents(ctx, key); err != nil {
			return dcs.Version{}, s.writeError("put", key, unsent{fmt.Errorf("make the node above: %w", err)})
		}
		if v, err = s.change(ctx, key, value, o, nil); errors.Is(err, zk.ErrNoNode) {
			err = unsent{fmt.Errorf("the node above was deleted meanwhile: %w", err)}
		}
	}
	if !errors.Is(err, zk.ErrNodeExists) {
		return v, s.wrapWrite("put", key, err)
	}
	seen, err := s.look(ctx, key)
	if err != nil {
		return dcs.Version{}, s.writeError("put", key, err)
	}
	if seen.Stat == nil || seen.DataLength > 0 {
		return dcs.Version{}, s.conflict("put", key)
	}
	data, err := call(ctx, s, func() ([]byte, error) {
		data, _, err := s.conn.Get(s.Root + key)
		return data, err
	})
	switch {
	case errors.Is(err, zk.ErrNoNode): // it was there, and is gone since
		return dcs.Version{}, s.conflict("put", key)
	case err != nil:
		return dcs.Version{}, s.writeError("put", key, unsent{err})
	case isKey(data, int(seen.NumChildren)):
		return dcs.Version{}, s.conflict("put", key)
	case o != nil:
		return s.take(ctx, key, value, seen, o)
	}
	return s.set(ctx, key, value, seen)
}

// take writes a key over a node of somebody else, or of nobody, and makes it the owner's: a set leaves the old owner.
func (s *Store) take(ctx context.Context, key string, value []byte, seen look, o *owner) (dcs.Version, error) {
	if seen.NumChildren > 0 {
		return dcs.Version{}, fmt.Errorf("zookeeper: put %s: not applied: keys are below it, so it cannot belong to a lease: %w",
			key, zk.ErrNotEmpty)
	}
	v, err := s.change(ctx, key, value, o, &seen)
	return v, s.wrapWrite("put", key, err)
}

// errOverwritten: the servers compare the version of the data alone.
var errOverwritten = errors.New("the key was deleted and made again by somebody else in the very moment, and the new one was" +
	" overwritten or deleted: read the key again")

// set writes a node that was just looked at, and stays whose it is.
func (s *Store) set(ctx context.Context, key string, value []byte, seen look) (dcs.Version, error) {
	stat, err := call(ctx, s, func() (*zk.Stat, error) {
		if err := s.still(seen.session); err != nil {
			return nil, err
		}
		return s.conn.Set(s.Root+key, value, seen.Version)
	})
	if err == nil && stat.Czxid != seen.Czxid {
		err = errOverwritten
	}
	if err != nil {
		return dcs.Version{}, s.writeError("put", key, err)
	}
	return version(stat), nil
}

// still refuses what was prepared in another session: the key may have another holder since.
func (s *Store) still(session int64) error {
	if s.conn.SessionID() != session {
		return unsent{errNewSession}
	}
	return nil
}

// change makes a node in one transaction; over another one that was just looked at, which is removed first. The node is
// made empty and then written, since only of the writing do the servers say which node it was: a version that was read
// later could be somebody else's. So the old one is written before it is removed, too.
func (s *Store) change(ctx context.Context, key string, value []byte, o *owner, over *look) (dcs.Version, error) {
	path := s.Root + key
	flags := int32(0)
	if o != nil {
		if err := o.check(); err != nil {
			return dcs.Version{}, unsent{err}
		}
		flags = zk.FlagEphemeral
	}
	var ops []any
	if over != nil {
		ops = removal(path, over)
	}
	ops = append(ops,
		&zk.CreateRequest{Path: path, Data: []byte{}, Acl: s.acl(), Flags: flags},
		&zk.SetDataRequest{Path: path, Data: value, Version: 0},
	)
	overwritten := false
	stat, err := call(ctx, s, func() (*zk.Stat, error) {
		if over != nil {
			if err := s.still(over.session); err != nil {
				return nil, err
			}
		}
		made, err := s.conn.Multi(ops...)
		var stat *zk.Stat
		if err == nil {
			stat = made[len(made)-1].Stat
			overwritten = over != nil && made[0].Stat.Czxid != over.Czxid
		}
		if o != nil {
			err = o.made(ctx, key, value, stat, err) // also when nobody waits any more
		}
		return stat, err
	})
	switch {
	case err != nil:
		return dcs.Version{}, err
	case overwritten:
		return dcs.Version{}, errOverwritten
	}
	return version(stat), nil
}

// removal deletes a node in a transaction, whose first result says which it was.
func removal(path string, seen *look) []any {
	return []any{
		&zk.SetDataRequest{Path: path, Data: []byte{}, Version: seen.Version},
		&zk.DeleteRequest{Path: path, Version: seen.Version + 1},
	}
}

// makeParents makes the nodes above key, without data.
func (s *Store) makeParents(ctx context.Context, key string) error {
	above := parent(s.Root + key)
	make := func(path string) error {
		_, err := call(ctx, s, func() (string, error) { return s.conn.Create(path, nil, 0, s.acl()) })
		if errors.Is(err, zk.ErrNodeExists) {
			return nil
		}
		return err
	}
	var missing []string
	for ; above != "/"; above = parent(above) {
		err := make(above)
		if err == nil {
			break
		}
		if !errors.Is(err, zk.ErrNoNode) {
			return fmt.Errorf("%s: %w", above, err)
		}
		missing = append(missing, above)
	}
	for _, path := range slices.Backward(missing) {
		if err := make(path); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// Delete implements [dcs.Writer]: a synced look at the key, then one request. A key that has others below it is refused.
func (s *Store) Delete(ctx context.Context, key string, prev dcs.Version) error {
	if err := s.check("key", key); err != nil {
		return err
	}
	if prev == (dcs.Version{}) {
		return fmt.Errorf("%w: it cannot be absent and deleted", s.conflict("delete", key))
	}
	ctx, cancel := s.bound(ctx)
	defer cancel()
	seen, err := s.look(ctx, key)
	switch {
	case err != nil:
		return s.writeError("delete", key, err)
	case seen.Stat == nil || version(seen.Stat) != prev:
		return s.conflict("delete", key)
	}
	_, err = call(ctx, s, func() (struct{}, error) {
		if err := s.still(seen.session); err != nil {
			return struct{}{}, err
		}
		done, err := s.conn.Multi(removal(s.Root+key, &seen)...)
		if err == nil && done[0].Stat.Czxid != seen.Czxid {
			err = errOverwritten
		}
		return struct{}{}, err
	})
	return s.wrapWrite("delete", key, err)
}

// look is the state of a node as it was seen in a session.
type look struct {
	*zk.Stat // nil: there is none
	session  int64
}

// look reads the state of a node, as the leader has it. Its error is an unsent one.
func (s *Store) look(ctx context.Context, key string) (seen look, err error) {
	err = again(ctx, func() (err error) {
		if seen.session, err = s.sync(ctx); err != nil {
			return err
		}
		seen.Stat, err = call(ctx, s, func() (*zk.Stat, error) {
			found, stat, err := s.conn.Exists(s.Root + key)
			if !found {
				stat = nil
			}
			return stat, err
		})
		if err == nil {
			err = s.still(seen.session)
		}
		return err
	})
	if err != nil {
		return look{}, unsent{err}
	}
	return seen, nil
}

func (s *Store) acl() []zk.ACL {
	if len(s.ACL) > 0 {
		return s.ACL
	}
	return zk.WorldACL(zk.PermAll)
}

func (s *Store) wrapWrite(op, key string, err error) error {
	if err == nil {
		return nil
	}
	return s.writeError(op, key, err)
}

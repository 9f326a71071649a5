package zookeeper

import (
	"errors"
	"fmt"
	"slices"

	"github.com/go-zookeeper/zk"

	"github.com/pgconvoy/pgconvoy/dcs"
	"github.com/pgconvoy/pgconvoy/internal/mutant"
)

// writeError says of a failed write whether it may have been applied.
func (s *Store) writeError(op, key string, err error) error {
	_, wasNotSent := errors.AsType[unsent](err)
	switch {
	case errors.Is(err, zk.ErrNoAuth):
		return fmt.Errorf("zookeeper: %s %s: not applied: %w; check the rights on it and on the node above it, and AddAuth", op, key, err)
	case errors.Is(err, zk.ErrNoChildrenForEphemerals):
		return fmt.Errorf("zookeeper: %s %s: not applied: a node above it belongs to a lease: %w", op, key, err)
	case wasNotSent:
		return fmt.Errorf("zookeeper: %s %s: not applied: %w", op, key, err)
	case matches(err, zk.ErrBadVersion, zk.ErrNoNode, zk.ErrNodeExists):
		return s.conflict(op, key)
	case errors.Is(err, zk.ErrNotEmpty):
		return fmt.Errorf("zookeeper: %s %s: not applied: keys are below it: %w", op, key, err)
	case refused(err), mutant.Is("law7-a-silent-store-is-unknown"):
		return fmt.Errorf("zookeeper: %s %s: not applied: %w", op, key, err)
	default:
		return fmt.Errorf("zookeeper: %s %s: %w: %w", op, key, dcs.ErrUnknown, err)
	}
}

func (s *Store) conflict(op, key string) error {
	return fmt.Errorf("zookeeper: %s %s: not applied: %w", op, key, dcs.ErrConflict)
}

// refused reports whether the request was not sent, or a server answered and said no. Everything else leaves the outcome
// of a write open.
func refused(err error) bool {
	if _, ok := errors.AsType[unsent](err); ok {
		return true
	}
	return hopeless(err) || matches(err,
		zk.ErrNoServer, // what waits when all servers were tried in vain is dropped
		zk.ErrNoNode, zk.ErrNodeExists, zk.ErrBadVersion, zk.ErrNotEmpty, zk.ErrNoChildrenForEphemerals,
		zk.ErrSessionExpired, zk.ErrSessionMoved)
}

// hopeless reports whether asking again cannot help: the request or the credentials are wrong, or nobody is there to ask.
func hopeless(err error) bool {
	return matches(err, errClosed, zk.ErrNoAuth, zk.ErrAuthFailed, zk.ErrInvalidACL, zk.ErrInvalidPath, zk.ErrBadArguments,
		zk.ErrInvalidFlags, zk.ErrShortBuffer)
}

func matches(err error, any ...error) bool {
	return slices.ContainsFunc(any, func(e error) bool { return errors.Is(err, e) })
}

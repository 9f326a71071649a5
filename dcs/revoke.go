package dcs

import "context"

// Revoker is the ability of a [Store] to end somebody else's lease. Find it by assertion; etcd, Consul and memory have it.
// ZooKeeper has not: it compares no owner in a transaction, and ends a session only for who knows its password.
//
// It is for a holder that is known to be off, whose claim would otherwise last until its time is over. It takes the whole
// lease, and not the key alone: a holder that is not off after all then learns by its next renewal that it holds nothing,
// where it would go on if it found its lease alive.
//
// Implementations MUST keep these sentences:
//
//  1. Revoke MUST end the lease that key belongs to, with all its keys, if key has this value and is at version v, in both
//     its numbers; else ErrConflict, and nothing was changed. A holder that wrote the key since is alive.
//  2. When Revoke has returned nil, that lease is over: its holder is told at its next renewal, its writes are refused, and
//     its keys are free to be had.
//  3. Revoke MUST NOT end any other lease, whatever happens to key meanwhile, nor remove a key that belongs to none: that is
//     an error.
//  4. When the outcome is not known the error MUST be ErrUnknown: that one lease may be over, or end by it later. Every other
//     error means that nothing was changed and nothing will be. A call MUST end within a bound, and an error name the key.
type Revoker interface {
	Revoke(ctx context.Context, key string, value []byte, v Version) error
}

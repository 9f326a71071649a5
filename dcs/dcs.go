package dcs

import (
	"context"
	"errors"
	"fmt"
	"iter"
)

// Errors that callers branch on; test with [errors.Is].
var (
	// ErrConflict says that the key is not at the version that the caller named. Nothing was changed.
	ErrConflict = errors.New("dcs: the key has another version")
	// ErrUnknown: the request may have been sent and no answer came. It may have been applied or not: read the key
	// again. Every other error of a write means that nothing was changed.
	ErrUnknown = errors.New("dcs: outcome unknown, it may have been applied")
	// ErrLeaseLost is the cause with which the context of a lease's function ends.
	ErrLeaseLost = errors.New("dcs: lease lost")
	// ErrInvalid is for a key, directory or value that no store accepts. Nothing was sent.
	ErrInvalid = errors.New("dcs: invalid argument")
)

// HeldError says that somebody else holds a lock.
type HeldError struct {
	Holder Entry // the holder's entry as read after the refusal; its Value is what the holder wrote
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("dcs: %s is held by somebody else, who wrote %.100q", e.Holder.Key, e.Holder.Value)
}

// Version identifies one state of one key. It is comparable; the zero value means "the key does not exist".
// The numbers are the store's own: compare them for equality, and Created also for order, as a fencing token.
type Version struct {
	Created  uint64 // when the key came into being; grows with every re-creation
	Modified uint64 // changes with every write
}

// Entry is one key with its value. The value belongs to the store: do not change it.
type Entry struct {
	Key     string // absolute, "/service/demo/leader"
	Value   []byte
	Version Version
}

// Reader reads a directory and follows it. It cannot write, by type.
//
// A dir is an absolute path without a trailing slash; see [CheckKey]. Package dcs/dcstest has a case for each of these
// sentences. Implementations MUST keep them:
//
//  1. Get MUST be linearizable per key: what was acknowledged before Get began, to whomever, is in the result. Keys may
//     be from different moments; what is atomic is one key.
//  2. Get MUST return an error when the store cannot answer, never an empty snapshot instead. A directory with nothing
//     in it is Known and empty.
//  3. An element of Watch MUST be the whole content of the directory as last confirmed (a level, not an event). The
//     first confirmed one is the present content. Equal elements may repeat.
//  4. When the content cannot be confirmed, Watch MUST yield it again with Stale set to the reason, and with At as it
//     was; it never yields less than it knew. Before the first confirmation Known is false.
//  5. No key may ever go back to an older version within one Watch. (One exception: the store itself was replaced by
//     an older copy, restored or rebuilt. Then the content is what the store now says, with its lower versions.)
//  6. After the last change the final state MUST arrive within a bound, whatever happened in between: a lost
//     connection, an event that never came, a leader that was killed, a lost quorum, a restart, a history that the
//     store has forgotten.
//  7. The content MUST be re-confirmed by a linearizable read at a bounded interval, changed or not: At advances.
//  8. A slow consumer MUST get the newest state, and holds nobody up; what lay between may be skipped.
//  9. A non-nil error is the last pair, with the last content: a bad argument, refused credentials, a client that the
//     caller closed, or the cause of the end of ctx. Trouble with the store is Stale and MUST NOT be an error.
//  10. Each range MUST open a watch of its own; leaving the loop closes it, and no goroutine outlives it. (A call that a
//     client without contexts blocks in ends with its connection.)
//  11. A dir MUST cover the keys below it, at any depth, and never its siblings: "/a" is not "/ab". A key that equals dir
//     is not part of it.
//  12. At MUST be read from this process's monotonic clock, before the read that confirms was sent or when the event came,
//     and never be a time that the store tells: a clock that is set changes no age.
type Reader interface {
	Get(ctx context.Context, dir string) (Snapshot, error)
	Watch(ctx context.Context, dir string) iter.Seq2[Snapshot, error]
}

// Writer writes single keys.
//
// Implementations MUST keep these sentences:
//
//  1. Put MUST write only if the key is at version prev, in both its numbers (zero: only if it does not exist), else
//     ErrConflict.
//  2. Put MUST return the version that it wrote.
//  3. Put MUST NOT change the lease that a key belongs to. (Through the writer of a lease it does: [Store].)
//  4. Delete MUST remove only if the key is at version prev, else ErrConflict; a key that is absent is a conflict.
//  5. When the outcome is not known the error MUST be ErrUnknown, and nothing may ever be sent twice. What was sent may
//     still arrive later. Every other error means that nothing was changed and nothing will be.
//  6. A version MUST NOT come back: Modified changes with every write, Created grows with every re-creation, so that a
//     version read before a deletion is a conflict for ever. (One exception: the store was replaced by an older copy.)
//  7. A key that [CheckKey] accepts and a value of up to [MaxValue] bytes MUST be stored and read back byte for byte. A
//     key may have others below it. What is not accepted is refused with ErrInvalid and its name, before it is sent; a
//     store may so refuse a value that is too large for a lease's writer.
//  8. A call MUST end within a bound, its context's or the back end's own. Under a context that has ended nothing is
//     sent, and the error has its cause.
//  9. An error MUST name the key or the directory that was asked for.
type Writer interface {
	Put(ctx context.Context, key string, value []byte, prev Version) (Version, error)
	Delete(ctx context.Context, key string, prev Version) error
}

// Store is a configuration store. Lease runs fn with a lease of the back end's TTL; w writes as a [Writer] does, for
// the lease.
//
// A key that belongs to a lease has no others below it (ZooKeeper cannot have them).
//
// Implementations MUST keep these sentences:
//
//  1. A key that fn puts through w MUST belong to the lease and go with it, also one that belonged to another lease or
//     to none; other keys stay.
//  2. fn's context MUST end with cause ErrLeaseLost before the store may give the keys away, judged by this process's
//     monotonic clock from before the last renewal that succeeded was sent, and at once when the store says that the
//     lease is over.
//  3. The lease MUST be released when fn returns, fails or panics, also when ctx has ended. A release that fails is no
//     error: the lease runs out.
//  4. After the end of the lease w MUST write nothing: a late Put fails with ErrLeaseLost, or with ErrConflict where the
//     key is not at prev either; one that was on its way changes nothing when it arrives.
//  5. Trouble shorter than the TTL MUST NOT end a lease: a lost connection, a restart of the servers.
//  6. Lease MUST return fn's error, or the reason why no lease was had, within a bound and without a call of fn. If fn
//     fails with the end of its context and the lease was lost, the error is ErrLeaseLost too.
//  7. Leases MUST NOT depend on each other: they may nest, and the release of one leaves the others as they are. So does
//     the loss of one, unless a client has but one to lose (ZooKeeper's session); other clients' leases live on.
type Store interface {
	Reader
	Writer
	Lease(ctx context.Context, fn func(ctx context.Context, w Writer) error) error
}

package dcs

import (
	"context"
	"errors"
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

func (e *HeldError) Error() string { return "dcs: " + e.Holder.Key + " is held by somebody else" }

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
// A dir is an absolute path without a trailing slash; it covers the keys below it and never its siblings:
// "/service/demo" is not "/service/demo2". A key that equals dir is not part of it.
//
// Implementations MUST keep these sentences:
//
//  1. Get is linearizable per key: what was acknowledged before Get began is in the result. Keys may be from
//     different moments; what must be atomic is one key.
//  2. Get returns an error when the store cannot answer, never an empty snapshot instead.
//  3. An element of Watch is the last confirmed content (a level, not an event). Equal elements may repeat.
//  4. When the content cannot be confirmed, Watch yields it again with Stale set to the reason; it never yields
//     less than it knew. Before the first confirmation Known is false.
//  5. No key ever goes back to an older version within one Watch. (One exception: the store itself was replaced by
//     an older copy, restored or rebuilt. Then the content is what the store now says, with its lower versions.)
//  6. After the last change the final state arrives within a bound, whatever happened in between.
//  7. The content is re-confirmed by a linearizable read at a bounded interval, changed or not.
//  8. A slow consumer gets the newest state; what lay between may be skipped.
//  9. A non-nil error is the last pair, with the last content: a bad argument, refused credentials, a client that the
//     caller closed, or the cause of the end of ctx. Trouble with the store is Stale, not an error.
//  10. Each range opens a watch of its own; leaving the loop closes it, and no goroutine outlives it.
type Reader interface {
	Get(ctx context.Context, dir string) (Snapshot, error)
	Watch(ctx context.Context, dir string) iter.Seq2[Snapshot, error]
}

// Writer writes single keys.
//
// Implementations MUST keep these sentences:
//
//  1. Put writes only if the key is at version prev (zero: only if it does not exist), else ErrConflict.
//  2. Put returns the version that it wrote.
//  3. Put never changes the lease that a key belongs to.
//  4. Delete removes only if the key is at version prev, else ErrConflict; a key that is absent is a conflict.
//  5. When the outcome is not known the error is ErrUnknown; nothing is ever sent twice.
type Writer interface {
	Put(ctx context.Context, key string, value []byte, prev Version) (Version, error)
	Delete(ctx context.Context, key string, prev Version) error
}

// Store is a configuration store.
//
// Lease runs fn with a lease of the back end's TTL. Keys that fn puts through w belong to the lease and go with it.
// fn's context ends with cause ErrLeaseLost before the store may give the keys away, judged by this process's
// monotonic clock. The lease is released when fn returns, fails or panics, also when ctx has ended; after that w writes
// nothing (ErrLeaseLost). A release that fails is no error: the lease runs out. Lease returns fn's error, or the
// reason why no lease was had.
type Store interface {
	Reader
	Writer
	Lease(ctx context.Context, fn func(ctx context.Context, w Writer) error) error
}

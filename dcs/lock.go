package dcs

import (
	"context"
	"errors"
	"fmt"
	"path"
)

// Lock runs fn while key is held under a lease of s. value tells others who holds it. held is the version of the
// key as created; held.Created is the fencing token: it grows with every holder. fn writes the key again through w.
//
// When somebody else holds the key the error is a [*HeldError] with the holder's entry. fn's context ends with cause
// [ErrLeaseLost] when the lease is lost. The key goes with the lease when fn returns.
//
// The key must be inside a directory ("/pgconvoy/lock", not "/lock"), since the holder is read from there.
func Lock(ctx context.Context, s Store, key string, value []byte, fn func(ctx context.Context, w Writer, held Version) error) error {
	if err := CheckKey("key", key); err != nil {
		return err
	}
	if path.Dir(key) == "/" {
		return fmt.Errorf("%w: key %q of a lock is in no directory", ErrInvalid, key)
	}
	return s.Lease(ctx, func(ctx context.Context, w Writer) error {
		held, err := w.Put(ctx, key, value, Version{})
		if errors.Is(err, ErrConflict) {
			snap, rerr := s.Get(ctx, path.Dir(key))
			if rerr != nil {
				return fmt.Errorf("dcs: %s is held, and its holder could not be read: %w", key, rerr)
			}
			if holder, ok := snap.Get(key); ok {
				return &HeldError{Holder: holder}
			}
			return err // given back in between: the caller may try again
		}
		if err != nil {
			return err
		}
		return fn(ctx, w, held)
	})
}

package dcs

import (
	"context"
	"errors"
	"fmt"
	"path"
)

// Lock runs fn while key is held under a lease of s. value tells others who holds it. held is the version of the
// key as created. fn writes the key again through w.
//
// These sentences hold over every store that keeps the contract:
//
//  1. One holds at a time: fn runs only while the key belongs to its lease. When somebody else holds it the error is a
//     [*HeldError] with the holder's entry, and fn is not run.
//  2. held.Created is the fencing token: it grows with every holder, also after one that died.
//  3. fn's context ends with cause [ErrLeaseLost] before anybody else may hold the key, and w writes nothing after.
//  4. The key goes when fn returns, fails or panics.
//
// An error that is [ErrUnknown] says that it is not known whether the key was had; fn is not run, and the key goes with
// the lease. The key must be inside a directory ("/pgconvoy/lock", not "/lock"), since the holder is read from there.
func Lock(ctx context.Context, s Store, key string, value []byte, fn func(ctx context.Context, w Writer, held Version) error) error {
	if err := CheckKey("key", key); err != nil {
		return err
	}
	if path.Dir(key) == "/" {
		return fmt.Errorf("%w: key %q of a lock is in no directory", ErrInvalid, key)
	}
	leased := false
	err := s.Lease(ctx, func(ctx context.Context, w Writer) error {
		leased = true
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
	if err != nil && !leased {
		return fmt.Errorf("dcs: lock %s: not held: %w", key, err)
	}
	return err
}

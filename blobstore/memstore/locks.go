package memstore

import (
	"context"
	"fmt"

	"mediafs/blobstore"
	"mediafs/blobstore/locktable"
)

// SetLock implements blobstore.Locker. What is written is there for all at once, so no version changes.
func (a *attached) SetLock(ctx context.Context, ino blobstore.Ino, lock blobstore.Lock, wait bool) (uint64, error) {
	err := a.do(ctx, "lock", ino, func() error {
		_, err := a.node(ino)
		return err
	})
	if err != nil {
		return 0, err
	}
	if err := a.locks.Set(ctx, ino, locktable.Held{Lock: lock, Mount: a.number}, wait); err != nil {
		return 0, fmt.Errorf("lock node %d: %w", ino, err)
	}
	return 0, nil
}

// TestLock implements blobstore.Locker.
func (a *attached) TestLock(_ context.Context, ino blobstore.Ino, lock blobstore.Lock) (blobstore.Lock, error) {
	if err := lock.Check(); err != nil {
		return lock, fmt.Errorf("test lock of node %d: %w", ino, err)
	}
	held := a.locks.Test(ino, locktable.Held{Lock: lock, Mount: a.number})
	if held == nil {
		return blobstore.Lock{}, nil
	}
	if held.Mount != a.number {
		held.Pid = 0
	}
	return held.Lock, nil
}

// ReleaseLocks implements blobstore.Locker.
func (a *attached) ReleaseLocks(ctx context.Context, ino blobstore.Ino, kind blobstore.LockKind, owner uint64) {
	a.dropLocks(ctx, ino, func(h locktable.Held) bool { return h.Mount == a.number && h.Kind == kind && h.Owner == owner })
}

func (a *attached) dropLocks(ctx context.Context, ino blobstore.Ino, of func(locktable.Held) bool) {
	_ = a.locks.Drop(ctx, ino, of) // always nil: nobody is asked
}

package pgstore

import (
	"context"
	"encoding/binary"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

// epochs keep what was given up from being done later (migrations/007_fence.sql). Every change says which epoch it is of. Once the outcome of one
// is not known, because the connection broke or its time was over, the next change begins a new epoch first: what was given up is
// either done by then, and seen, or refused when it arrives.
type epochs struct {
	current atomic.Int64
	doubted atomic.Int64 // the epoch of a change whose outcome is not known; it is over when it is the current one

	beginning *semaphore.Weighted // held while a new one begins
}

func newEpochs() *epochs {
	e := &epochs{beginning: semaphore.NewWeighted(1)}
	e.current.Store(1)
	return e
}

// doubt notes that the outcome of a change of an epoch is not known.
func (e *epochs) doubt(epoch int64) {
	for {
		known := e.doubted.Load()
		if known >= epoch || e.doubted.CompareAndSwap(known, epoch) {
			return
		}
	}
}

// epoch returns that of the change which is done next, and begins one if the current is doubted.
func (d *Drive) epoch(ctx context.Context) (int64, error) {
	e := d.epochs
	current := e.current.Load()
	if e.doubted.Load() < current {
		return current, nil
	}
	if err := e.beginning.Acquire(ctx, 1); err != nil {
		return 0, err
	}
	defer e.beginning.Release(1)
	current = e.current.Load()
	if e.doubted.Load() < current {
		return current, nil // somebody else began it
	}
	next := current + 1
	err := d.transact(ctx, false, begin, nil, statement{
		sql:  "select mediafs.begin_epoch($1, $2, $3, $4, $5)",
		args: []any{d.id, d.mount, d.key[:], d.fence(), next},
	})
	if err != nil {
		return 0, err
	}
	e.current.Store(next)
	return next, nil
}

// fence is the number of the advisory lock that the mount's changes hold while they go on.
func (d *Drive) fence() int64 { return int64(binary.BigEndian.Uint64(d.mount[:8])) }

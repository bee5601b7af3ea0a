package blobstore

import (
	"context"
	"fmt"
	"math"
)

// A Locker is what a Drive also is that keeps file locks for all who have the drive, on whatever machine: the flock(2) and fcntl(2)
// locks of every mount of it exclude each other. Of a drive that is none, each machine's kernel keeps the locks of its own mount.
//
// A lock is held until its owner lets it go, or the drive is closed, or the one who attached the drive is dead.
type Locker interface {
	// SetLock sets a lock, or with LockNone takes it away, as fcntl(2) and flock(2) do: the owner's locks of that kind on the
	// range become what it says, whatever they were, all at once. If somebody else's is in the way it gives ErrLocked, or with
	// wait waits until none is or ctx ends, which it may do for ever; ErrDeadlock if that one waits for the owner.
	//
	// Who sets a lock sees what others wrote before they took theirs away: that stores what was written here first. For
	// what is cached above, version changes with each change by another mount that was noticed until now.
	SetLock(ctx context.Context, ino Ino, lock Lock, wait bool) (version uint64, err error)

	// TestLock returns a lock of somebody else that is in the way of one, or one of type LockNone. The Pid of a lock that
	// another mount holds is 0.
	TestLock(ctx context.Context, ino Ino, lock Lock) (Lock, error)

	// ReleaseLocks takes away all locks of one kind that an owner has on a node. It can't fail: what the store can't be told
	// now it is told later.
	ReleaseLocks(ctx context.Context, ino Ino, kind LockKind, owner uint64)
}

// LockerOf finds the Locker of a drive: itself, or the one that it wraps, which its method Unwrap gives. nil: it is none.
func LockerOf(d Drive) Locker {
	for {
		if l, ok := d.(Locker); ok {
			return l
		}
		w, ok := d.(interface{ Unwrap() Drive })
		if !ok {
			return nil
		}
		d = w.Unwrap()
	}
}

// A Lock is a lock on a range of bytes of a node.
type Lock struct {
	Kind       LockKind
	Type       LockType
	Owner      uint64 // of this drive as it is attached: two attachments have different owners of one number
	Start, End int64  // both inclusive
	Pid        uint32 // of the process that set it, on its own machine
}

// LockKind says whose rules a lock follows. Locks of two kinds are never in each other's way.
type LockKind uint8

// The kinds of locks. The locks of open file descriptions, F_OFD_SETLK, are POSIX locks with another owner. A flock(2) lock is of the
// whole file: from 0 to LockMax.
const (
	LockPosix LockKind = iota
	LockFlock
)

// LockType says what a lock excludes: LockRead those that are LockWrite, LockWrite every other.
type LockType uint8

// The types of locks.
const (
	LockNone LockType = iota
	LockRead
	LockWrite
)

// LockMax is the End of a lock that reaches to the end of the file, however long that gets.
const LockMax int64 = math.MaxInt64

// Check gives ErrInvalid for a lock that can't be.
func (l Lock) Check() error {
	if l.Start < 0 || l.End < l.Start || l.Kind > LockFlock || l.Type > LockWrite || l.Kind == LockFlock && (l.Start != 0 || l.End != LockMax) {
		return fmt.Errorf("lock of bytes %d to %d: %w", l.Start, l.End, ErrInvalid)
	}
	return nil
}

// Excludes says whether two locks of different owners can't be held at once.
func (l Lock) Excludes(o Lock) bool {
	return l.Kind == o.Kind && l.Start <= o.End && o.Start <= l.End &&
		(l.Type == LockWrite && o.Type != LockNone || o.Type == LockWrite && l.Type != LockNone)
}

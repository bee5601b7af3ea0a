package fusefs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// Of drives that are a blobstore.Locker the kernel asks here for every lock, and keeps none itself. Who owns a lock is a number of the
// kernel's: for POSIX locks one for each process (more exactly, each table of open files), for flock(2) and for the locks of open file
// descriptions (F_OFD_SETLK) one for each open file. It does not say which of the latter two a lock is that is no flock(2) lock, nor when
// it is over. So each owner is remembered together with the handle it last used. Its locks end
//
//   - when it closes any descriptor of the node, as POSIX says: FUSE_FLUSH names the owner. Files that are opened to be read are
//     flushed too, therefore (fillOpen);
//   - when the handle is released. No process is left by then that has it open, and so all that was locked by it is that of
//     an open file.
//
// The kernel waits for the answer to the former, not to the latter. So a program can ask for a lock again before the one is let go that it
// had by a file it has closed. Whoever is refused a flock(2) lock is tried again if a handle is released within a moment.
//
// Locks on folders never come here: of those the kernel of each machine keeps its own.

// nodeLocks are the locks on an open node that were asked for here.
type nodeLocks struct {
	mu      sync.Mutex // guards the rest
	handles map[lockOwner]uint64
	known   bool   // version is known
	version uint64 // of what the kernel may have in its cache: see blobstore.Locker

	released uint64        // counts handles that had locks
	next     chan struct{} // closed when one more is; nil: nobody waits
}

// releaseTakes is how long after a close(2) the handle may still be on its way to be released. It is all spent only when a flock lock is
// refused.
const releaseTakes = 50 * time.Millisecond

type lockOwner struct {
	kind blobstore.LockKind
	id   uint64
}

// used notes that an owner asks for a lock by a handle.
func (l *nodeLocks) used(owner lockOwner, handle uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.handles == nil {
		l.handles = make(map[lockOwner]uint64)
	}
	l.handles[owner] = handle
}

// take forgets the owners for which that is so, and returns them.
func (l *nodeLocks) take(of func(owner lockOwner, handle uint64) bool) []lockOwner {
	l.mu.Lock()
	defer l.mu.Unlock()
	var owners []lockOwner
	for owner, handle := range l.handles {
		if of(owner, handle) {
			owners = append(owners, owner)
			delete(l.handles, owner)
		}
	}
	return owners
}

// release forgets the owners that used a handle last, and returns them; done is to be called when their locks are gone.
func (l *nodeLocks) release(handle uint64) (owners []lockOwner, done func()) {
	owners = l.take(func(_ lockOwner, by uint64) bool { return by == handle })
	if len(owners) == 0 {
		return nil, func() {}
	}
	return owners, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.released++
		if l.next != nil {
			close(l.next)
			l.next = nil
		}
	}
}

// releases is how many handles with locks have been released so far, and a channel that is closed when one more is.
func (l *nodeLocks) releases() (uint64, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next == nil {
		l.next = make(chan struct{})
	}
	return l.released, l.next
}

// hasReleased says whether a handle has been released since releases was before. It waits for one until ctx ends.
func (l *nodeLocks) hasReleased(ctx context.Context, before uint64) bool {
	now, next := l.releases()
	if now != before {
		return ctx.Err() == nil
	}
	select {
	case <-next:
		return true
	case <-ctx.Done():
		return false
	}
}

// isNew says whether a version is another than that of what the kernel may have, and takes it for that.
func (l *nodeLocks) isNew(version uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known && l.version == version {
		return false
	}
	l.known, l.version = true, version
	return true
}

// GetLk answers F_GETLK.
func (fs *filesystem) GetLk(cancel <-chan struct{}, in *fuse.LkIn, out *fuse.LkOut) fuse.Status {
	r, err := fs.beginWaiting(opLock, &in.InHeader, cancel)
	if err != nil {
		return r.end(err)
	}
	locker, lock, err := r.lockOf(in)
	if err != nil {
		return r.end(err)
	}
	held, err := locker.TestLock(r.ctx, r.ino, lock)
	if err != nil {
		return r.endNode(err)
	}
	out.Lk = fuse.FileLock{Start: uint64(held.Start), End: uint64(held.End), Typ: fcntlType(held.Type), Pid: held.Pid}
	return r.end(nil)
}

// SetLk answers F_SETLK, F_OFD_SETLK and flock(2) with LOCK_NB, and every unlocking.
func (fs *filesystem) SetLk(_ <-chan struct{}, in *fuse.LkIn) fuse.Status {
	r, err := fs.begin(opLock, &in.InHeader)
	if err != nil {
		return r.end(err)
	}
	return r.endNode(r.setLock(r.ctx, in, false))
}

// SetLkw answers those that wait. They wait for as long as the program does: until any signal reaches it. The kernel knows whether
// that signal ends the system call or starts it again.
func (fs *filesystem) SetLkw(cancel <-chan struct{}, in *fuse.LkIn) fuse.Status {
	r, err := fs.begin(opLockWait, &in.InHeader)
	if err != nil {
		return r.end(err)
	}
	ctx, stop := context.WithCancelCause(context.Background())
	defer stop(nil)
	defer fs.waiting.add(r.drive, stop)()
	if fs.frozen.Load() { // since it began, and before it was among those who are told; so may this be
		return r.end(blobstore.ErrReadOnly)
	} else if err := r.isSuspended(); err != nil {
		return r.end(err)
	}
	fs.watchers.Go(func() {
		select {
		case <-cancel:
			stop(context.Canceled)
		case <-ctx.Done():
		}
	})
	return r.endNode(r.setLock(ctx, in, true))
}

// setLock does what the kernel asks for. When it has a lock, the kernel has nothing in its cache that is older than the lock.
func (r *request) setLock(ctx context.Context, in *fuse.LkIn, wait bool) error {
	locker, lock, err := r.lockOf(in)
	if err != nil {
		return err
	}
	open, err := r.fs.handles.file(in.Fh, in.NodeId)
	if err != nil {
		return err
	}
	locks := &open.node.locks
	if lock.Type != blobstore.LockNone {
		locks.used(lockOwner{lock.Kind, lock.Owner}, in.Fh)
	}
	before, _ := locks.releases()
	version, err := locker.SetLock(ctx, r.ino, lock, wait)
	if lock.Kind == blobstore.LockFlock && errors.Is(err, blobstore.ErrLocked) {
		soon, cancel := context.WithTimeout(ctx, releaseTakes)
		defer cancel()
		for errors.Is(err, blobstore.ErrLocked) && locks.hasReleased(soon, before) {
			before, _ = locks.releases()
			version, err = locker.SetLock(ctx, r.ino, lock, wait)
		}
	}
	if err == nil && lock.Type != blobstore.LockNone && locks.isNew(version) {
		if status := r.fs.server.InodeNotify(in.NodeId, 0, 0); status != fuse.OK && status != fuse.ENOENT {
			r.fs.log.Warn("the kernel may have old content of a locked file", "node", in.NodeId, "error", status)
		}
	}
	return err
}

// lockOf decodes which lock is asked for, and finds who keeps it.
func (r *request) lockOf(in *fuse.LkIn) (blobstore.Locker, blobstore.Lock, error) {
	lock := blobstore.Lock{Owner: in.Owner, Start: int64(in.Lk.Start), End: int64(in.Lk.End), Pid: in.Lk.Pid}
	if in.LkFlags&fuse.LK_FLOCK != 0 {
		lock.Kind, lock.Start, lock.End = blobstore.LockFlock, 0, blobstore.LockMax
	}
	switch in.Lk.Typ {
	case unix.F_RDLCK:
		lock.Type = blobstore.LockRead
	case unix.F_WRLCK:
		lock.Type = blobstore.LockWrite
	}
	locker := blobstore.LockerOf(r.drive.Drive)
	if locker == nil {
		return nil, lock, fmt.Errorf("the drive keeps no locks: %w", blobstore.ErrNotSupported)
	}
	return locker, lock, nil
}

func fcntlType(t blobstore.LockType) uint32 {
	switch t {
	case blobstore.LockRead:
		return unix.F_RDLCK
	case blobstore.LockWrite:
		return unix.F_WRLCK
	}
	return unix.F_UNLCK
}

// unlock takes away the locks of some owners on a node.
func (r *request) unlock(node *openNode, owners []lockOwner) {
	for _, owner := range owners {
		blobstore.LockerOf(node.drive.Drive).ReleaseLocks(r.ctx, node.ino, owner.kind, owner.id)
	}
}

// lockWaits are those who wait for a lock.
type lockWaits struct {
	mu   sync.Mutex // guards the rest
	last uint64
	all  map[uint64]lockWait
}

type lockWait struct {
	drive *drive
	stop  context.CancelCauseFunc
}

// add takes in one who waits, until remove is called.
func (w *lockWaits) add(d *drive, stop context.CancelCauseFunc) (remove func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all == nil {
		w.all = make(map[uint64]lockWait)
	}
	w.last++
	id := w.last
	w.all[id] = lockWait{d, stop}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.all, id)
	}
}

// end has those fail with err who wait for a lock on some drives.
func (w *lockWaits) end(err error, of func(*drive) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, wait := range w.all {
		if of(wait.drive) {
			wait.stop(err)
		}
	}
}

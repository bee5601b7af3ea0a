package fusefs

import (
	"context"
	"sync/atomic"

	"mediafs/blobstore"
)

// drive is an open drive as this mount shows it.
type drive struct {
	blobstore.Drive
	number    blobstore.DriveID // in the kernel's node ids; 0: the one drive of the mount, or the root folder of many
	ids       ids
	suspended atomic.Pointer[error] // why nothing of it is answered; nil: it is

	// What follows is of the drives that a mount of many opens and closes.
	many  *drives // nil: it is open as long as the mount
	name  blobstore.DriveName
	keep  bool
	again bool          // it was closed in between: the kernel may know nodes by number that a store of folders has to be shown again
	uses  atomic.Int64  // requests under way and open handles; it is not closed while there are any
	used  atomic.Uint64 // when it was last let go, in drives.clock
}

// hold keeps a drive open until release. Whoever calls it holds the drive already, or drives.mu.
func (d *drive) hold() {
	if d.many != nil {
		d.uses.Add(1)
	}
}

func (d *drive) release() {
	if d.many == nil {
		return
	}
	d.used.Store(d.many.clock.Add(1))
	if d.uses.Add(-1) == 0 {
		d.many.becameIdle()
	}
}

// isIdle says whether nothing would be missed if the drive were closed.
func (d *drive) isIdle() bool {
	if d.keep || d.uses.Load() > 0 {
		return false
	}
	p, ok := d.Drive.(blobstore.Preserver)
	return !ok || p.PendingBytes() == 0
}

// nodeID is the kernel's number of a node of the drive.
func (d *drive) nodeID(ino blobstore.Ino) (uint64, error) { return nodeID(d.number, ino) }

// find returns the drive of a node, held until it is released, and the ino of the node in it.
func (fs *filesystem) find(ctx context.Context, node uint64) (*drive, blobstore.Ino, error) {
	number, ino := fs.split(node)
	if number == 0 {
		return fs.root, ino, nil
	}
	d, err := fs.many.hold(ctx, number)
	return d, ino, err
}

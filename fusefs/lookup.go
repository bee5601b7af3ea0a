package fusefs

import (
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"

	"mediafs/blobstore"
)

// Lookup finds a name in a folder. Answered, it is one lookup of the node that Forget will take back: the kernel never
// drops the answer to a request that it has handed out.
func (fs *filesystem) Lookup(cancel <-chan struct{}, header *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	r, err := fs.beginWaiting(opLookup, header, cancel)
	r.at.name = name
	if err != nil {
		return r.end(err)
	}
	attr, err := r.drive.Lookup(r.ctx, r.ino, name)
	if err != nil {
		if r.drive == fs.root && fs.many != nil {
			r.isAbout(blobstore.DriveName(name))
		}
		if r.drive.again && errors.Is(err, blobstore.ErrNotExist) {
			if _, gone := r.drive.Attr(r.ctx, r.ino); gone != nil {
				return r.endNode(gone) // nobody can say what is in a folder that is not known any more
			}
		}
		return r.end(err)
	}
	return r.end(r.fillEntry(out, &attr, r.at))
}

// isAbout has a request that was refused at the root of a mount of many recorded on the drive that it was about, if that is open.
func (r *request) isAbout(name blobstore.DriveName) {
	if d := r.fs.many.holdOpenedNamed(name); d != nil {
		root, _ := d.nodeID(blobstore.RootIno) // which is never too large
		r.drive, r.at = d, place{folder: root}
	}
}

// Forget takes lookups back. A drive that has been closed since has forgotten them itself.
func (fs *filesystem) Forget(node, lookups uint64) {
	number, ino := fs.split(node)
	if number == 0 {
		fs.root.Forget(ino, lookups)
	} else if d := fs.many.holdOpened(number); d != nil {
		defer d.release()
		d.Forget(ino, lookups)
	}
}

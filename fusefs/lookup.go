package fusefs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Lookup finds a name in a folder. Answered, it is one lookup of the node that Forget will take back: the kernel never
// drops the answer to a request that it has handed out.
func (fs *filesystem) Lookup(cancel <-chan struct{}, header *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	r, err := fs.beginWaiting("lookup", header, cancel)
	if err != nil {
		return r.end(err)
	}
	attr, err := r.drive.Lookup(r.ctx, r.ino, name)
	if err != nil {
		return r.end(err)
	}
	return r.end(r.fillEntry(out, &attr))
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

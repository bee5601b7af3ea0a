package fusefs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Lookup finds a name in a folder. Answered, it is one lookup of the node that Forget will take back: the kernel never
// drops the answer to a request that it has handed out.
func (fs *filesystem) Lookup(cancel <-chan struct{}, header *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	r := fs.beginWaiting("lookup", header, cancel)
	attr, err := fs.drive.Lookup(r.ctx, inoOf(header.NodeId), name)
	if err != nil {
		return r.end(err)
	}
	fs.fillEntry(out, &attr)
	return r.end(nil)
}

// Forget takes lookups back.
func (fs *filesystem) Forget(node, lookups uint64) {
	fs.drive.Forget(inoOf(node), lookups)
}

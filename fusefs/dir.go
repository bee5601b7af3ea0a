package fusefs

import (
	"github.com/hanwen/go-fuse/v2/fuse"

	"mediafs/blobstore"
)

// OpenDir opens a folder for listing.
func (fs *filesystem) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	r := fs.beginWaiting("opendir", &in.InHeader, cancel)
	dir, err := fs.drive.OpenDir(r.ctx, inoOf(in.NodeId))
	if err != nil {
		return r.endNode(err)
	}
	out.Fh = fs.handles.addDir(inoOf(in.NodeId), dir)
	return r.end(nil)
}

// ReadDir lists names.
func (fs *filesystem) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return fs.list("readdir", cancel, in, false, func(e *blobstore.Entry) bool {
		return out.AddDirEntry(dirEntry(e))
	})
}

// ReadDirPlus lists names, and with each that the drive has at hand the attributes: to the kernel that is a lookup. An entry
// without them has node 0, and the kernel looks it up when it is wanted.
func (fs *filesystem) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return fs.list("readdirplus", cancel, in, true, func(e *blobstore.Entry) bool {
		entry := out.AddDirLookupEntry(dirEntry(e))
		if entry == nil {
			return false
		}
		if e.Complete {
			fs.fillEntry(entry, &e.Attr)
		}
		return true
	})
}

// list reads entries from a position on until add has no room.
func (fs *filesystem) list(operation string, cancel <-chan struct{}, in *fuse.ReadIn, attributes bool, add func(*blobstore.Entry) bool) fuse.Status {
	r := fs.beginWaiting(operation, &in.InHeader, cancel)
	open, err := fs.handles.dir(in.Fh, inoOf(in.NodeId))
	if err != nil {
		return r.end(err)
	}
	added, full := 0, false
	open.mu.Lock()
	err = open.dir.Read(r.ctx, in.Offset, attributes, func(e *blobstore.Entry) bool {
		full = !add(e)
		if !full {
			added++
		}
		return !full
	})
	open.mu.Unlock()
	switch {
	case added > 0:
		// What was added counts as looked up, so it must reach the kernel. An error comes again when the kernel
		// goes on from there.
		return r.end(nil)
	case err != nil:
		return r.end(err)
	case full:
		return r.end(blobstore.ErrInvalid) // not room for one; getdents(2)
	}
	return r.end(nil)
}

func dirEntry(e *blobstore.Entry) fuse.DirEntry {
	return fuse.DirEntry{Name: e.Name, Ino: nodeID(e.Attr.Ino), Mode: e.Attr.Mode, Off: e.Position}
}

// FsyncDir makes the names in a folder durable.
func (fs *filesystem) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	r := fs.begin("fsyncdir", in.NodeId)
	open, err := fs.handles.dir(in.Fh, inoOf(in.NodeId))
	if err != nil {
		return r.end(err)
	}
	open.mu.Lock()
	defer open.mu.Unlock()
	return r.end(open.dir.Sync(r.ctx))
}

// ReleaseDir closes a folder. Nobody waits for the answer.
func (fs *filesystem) ReleaseDir(in *fuse.ReleaseIn) {
	r := fs.begin("releasedir", in.NodeId)
	r.end(fs.handles.removeDir(in.Fh, inoOf(in.NodeId)))
}

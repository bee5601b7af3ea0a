package fusefs

import (
	"github.com/hanwen/go-fuse/v2/fuse"

	"mediafs/blobstore"
)

// OpenDir opens a folder for listing.
func (fs *filesystem) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	r, err := fs.beginWaiting(opOpendir, &in.InHeader, cancel)
	if err != nil {
		return r.end(err)
	}
	dir, err := r.drive.OpenDir(r.ctx, r.ino)
	if err != nil {
		return r.endNode(err)
	}
	out.Fh = fs.handles.addDir(r.drive, r.node, dir)
	return r.end(nil)
}

// ReadDir lists names.
func (fs *filesystem) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return fs.list(opReaddir, cancel, in, false, func(e fuse.DirEntry) (room bool, _ *fuse.EntryOut) {
		return out.AddDirEntry(e), nil
	})
}

// ReadDirPlus lists names, and with each that the drive has at hand the attributes: to the kernel that is a lookup. An entry
// without them has node 0, and the kernel looks it up when it is wanted.
func (fs *filesystem) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return fs.list(opReaddirplus, cancel, in, true, func(e fuse.DirEntry) (room bool, _ *fuse.EntryOut) {
		entry := out.AddDirLookupEntry(e)
		return entry != nil, entry
	})
}

// list reads entries from a position on until add has no room. With attributes, add returns where those of the entry go.
func (fs *filesystem) list(
	op *operation, cancel <-chan struct{}, in *fuse.ReadIn, attributes bool, add func(fuse.DirEntry) (bool, *fuse.EntryOut),
) fuse.Status {
	r, err := fs.beginWaiting(op, &in.InHeader, cancel)
	if err != nil {
		return r.end(err)
	}
	open, err := fs.handles.dir(in.Fh, in.NodeId)
	if err != nil {
		return r.end(err)
	}
	added, full := 0, false
	var unnumbered []blobstore.Ino // looked up, and not to be told to the kernel
	open.mu.Lock()
	err = open.dir.Read(r.ctx, in.Offset, attributes, func(e *blobstore.Entry) bool {
		id, tooLarge := r.drive.nodeID(e.Attr.Ino)
		if tooLarge != nil {
			id = unknownIno // a lookup of the name says what is wrong
		}
		room, entry := add(fuse.DirEntry{Name: e.Name, Ino: id, Mode: e.Attr.Mode, Off: e.Position})
		if !room {
			full = true
			return false
		}
		added++
		switch {
		case !attributes || !e.Complete:
		case tooLarge != nil:
			unnumbered = append(unnumbered, e.Attr.Ino)
		default:
			_ = r.drive.fillEntry(entry, &e.Attr) // it has a number
			fs.paths.saw(id, place{in.NodeId, e.Name})
		}
		return true
	})
	open.mu.Unlock()
	for _, ino := range unnumbered {
		r.drive.Forget(ino, 1)
	}
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

// FsyncDir makes the names in a folder durable.
func (fs *filesystem) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	r, err := fs.begin(opFsyncdir, &in.InHeader)
	if err != nil {
		return r.end(err)
	}
	open, err := fs.handles.dir(in.Fh, in.NodeId)
	if err != nil {
		return r.end(err)
	}
	open.mu.Lock()
	defer open.mu.Unlock()
	return r.end(open.dir.Sync(r.ctx))
}

// ReleaseDir closes a folder. Nobody waits for the answer.
func (fs *filesystem) ReleaseDir(in *fuse.ReleaseIn) {
	r, err := fs.beginUnchecked(opReleasedir, &in.InHeader)
	if err == nil {
		err = fs.handles.removeDir(in.Fh, in.NodeId)
	}
	r.end(err)
}

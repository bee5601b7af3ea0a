package fusefs

import (
	"context"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// callerIDs are the caller of a request, as a user and group of the drive.
func (r *request) callerIDs(caller *fuse.InHeader) (uid, gid uint32) {
	return r.drive.ids.uid(caller.Uid), r.drive.ids.gid(caller.Gid)
}

// makeNode makes a node in the folder that a request is about. node says what it is, other than whose; the kernel has applied the
// umask.
func (fs *filesystem) makeNode(op *operation, caller *fuse.InHeader, name string, node blobstore.NewNode, out *fuse.EntryOut) fuse.Status {
	r, err := fs.beginChange(op, caller)
	r.at.name = name
	if err != nil {
		return r.end(err)
	}
	node.UID, node.GID = r.callerIDs(caller)
	attr, err := r.drive.Make(r.ctx, r.ino, name, node)
	if err != nil {
		return r.endNode(err)
	}
	return r.end(r.fillEntry(out, &attr, r.at))
}

// Mknod answers mknod(2), also for regular files.
func (fs *filesystem) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	return fs.makeNode(opMknod, &in.InHeader, name, blobstore.NewNode{Mode: in.Mode, Rdev: in.Rdev}, out)
}

// Mkdir answers mkdir(2).
func (fs *filesystem) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return fs.makeNode(opMkdir, &in.InHeader, name, blobstore.NewNode{Mode: unix.S_IFDIR | in.Mode&permissions}, out)
}

// Symlink answers symlink(2). The link's own mode means nothing and is always the same, symlink(7).
func (fs *filesystem) Symlink(_ <-chan struct{}, header *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	return fs.makeNode(opSymlink, header, name, blobstore.NewNode{Mode: unix.S_IFLNK | 0o777, Target: target}, out)
}

// Readlink answers readlink(2).
func (fs *filesystem) Readlink(cancel <-chan struct{}, header *fuse.InHeader) ([]byte, fuse.Status) {
	r, err := fs.beginWaiting(opReadlink, header, cancel)
	if err != nil {
		return nil, r.end(err)
	}
	target, err := r.drive.Readlink(r.ctx, r.ino)
	if err != nil {
		return nil, r.endNode(err)
	}
	return []byte(target), r.end(nil)
}

// Link answers link(2).
func (fs *filesystem) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	r, err := fs.beginChange(opLink, &in.InHeader)
	r.saw(in.Oldnodeid)
	r.at, r.to = fs.paths.place(in.Oldnodeid), place{in.NodeId, name}
	if err != nil {
		return r.end(err)
	}
	ino, err := r.sameDrive(in.Oldnodeid)
	if err != nil {
		return r.end(err)
	}
	attr, err := r.drive.Link(r.ctx, ino, r.ino, name)
	if err != nil {
		return r.endNode(err)
	}
	return r.end(r.fillEntry(out, &attr, r.to))
}

// Unlink answers unlink(2).
func (fs *filesystem) Unlink(_ <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	return fs.remove(opUnlink, header, name, blobstore.Drive.Unlink)
}

// Rmdir answers rmdir(2).
func (fs *filesystem) Rmdir(_ <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	return fs.remove(opRmdir, header, name, blobstore.Drive.Rmdir)
}

// remove removes a name from the folder that a request is about.
func (fs *filesystem) remove(
	op *operation, header *fuse.InHeader, name string, from func(blobstore.Drive, context.Context, blobstore.Ino, string) error,
) fuse.Status {
	r, err := fs.beginChange(op, header)
	r.at.name = name
	if err == nil {
		err = from(r.drive, r.ctx, r.ino, name)
	}
	if err == nil {
		r.saw(fs.paths.removed(r.at))
	}
	return r.end(err)
}

// saw takes note of the node that a request is found to have been about; 0: it is not known.
func (r *request) saw(node uint64) { _, r.subject = r.fs.split(node) }

// Rename answers renameat2(2).
func (fs *filesystem) Rename(_ <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	r, err := fs.beginChange(opRename, &in.InHeader)
	r.at.name, r.to = oldName, place{in.Newdir, newName}
	if err != nil {
		return r.end(err)
	}
	mode, err := renameMode(in.Flags)
	if err != nil {
		return r.end(err)
	}
	newParent, err := r.sameDrive(in.Newdir)
	if err != nil {
		return r.end(err)
	}
	err = r.drive.Rename(r.ctx, blobstore.Rename{
		Parent: r.ino, Name: oldName,
		NewParent: newParent, NewName: newName,
		Mode: mode,
	})
	if err == nil {
		r.saw(fs.paths.moved(r.at, r.to, mode == blobstore.RenameExchange))
	}
	return r.end(err)
}

// sameDrive returns the ino of another node that a request is about, which must be of the same drive.
func (r *request) sameDrive(node uint64) (blobstore.Ino, error) {
	number, ino := r.fs.split(node)
	if number != r.drive.number {
		return 0, blobstore.ErrCrossDevice
	}
	return ino, nil
}

// renameMode decodes the flags of renameat2(2). RENAME_WHITEOUT is for the layers of overlayfs, which a drive is none of.
func renameMode(flags uint32) (blobstore.RenameMode, error) {
	switch flags {
	case 0:
		return blobstore.RenameReplace, nil
	case unix.RENAME_NOREPLACE:
		return blobstore.RenameNoReplace, nil
	case unix.RENAME_EXCHANGE:
		return blobstore.RenameExchange, nil
	}
	return 0, blobstore.ErrInvalid
}

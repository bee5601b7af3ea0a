package fusefs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// callerIDs are the caller of a request, as a user and group of the drive.
func (r *request) callerIDs(caller *fuse.InHeader) (uid, gid uint32) {
	return r.drive.ids.uid(caller.Uid), r.drive.ids.gid(caller.Gid)
}

// makeNode makes a node, for which the kernel has applied the umask, in the folder that a request is about. node says what it is, other than whose.
func (fs *filesystem) makeNode(operation string, caller *fuse.InHeader, name string, node blobstore.NewNode, out *fuse.EntryOut) fuse.Status {
	r, err := fs.beginChange(operation, caller)
	if err != nil {
		return r.end(err)
	}
	node.UID, node.GID = r.callerIDs(caller)
	attr, err := r.drive.Make(r.ctx, r.ino, name, node)
	if err != nil {
		return r.endNode(err)
	}
	return r.end(r.fillEntry(out, &attr))
}

// Mknod answers mknod(2), also for regular files.
func (fs *filesystem) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	return fs.makeNode("mknod", &in.InHeader, name, blobstore.NewNode{Mode: in.Mode, Rdev: in.Rdev}, out)
}

// Mkdir answers mkdir(2).
func (fs *filesystem) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return fs.makeNode("mkdir", &in.InHeader, name, blobstore.NewNode{Mode: unix.S_IFDIR | in.Mode&permissions}, out)
}

// Symlink answers symlink(2). The link's own mode means nothing and is always the same, symlink(7).
func (fs *filesystem) Symlink(_ <-chan struct{}, header *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	return fs.makeNode("symlink", header, name, blobstore.NewNode{Mode: unix.S_IFLNK | 0o777, Target: target}, out)
}

// Readlink answers readlink(2).
func (fs *filesystem) Readlink(cancel <-chan struct{}, header *fuse.InHeader) ([]byte, fuse.Status) {
	r, err := fs.beginWaiting("readlink", header, cancel)
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
	r, err := fs.beginChange("link", &in.InHeader)
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
	return r.end(r.fillEntry(out, &attr))
}

// Unlink answers unlink(2).
func (fs *filesystem) Unlink(_ <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	r, err := fs.beginChange("unlink", header)
	if err == nil {
		err = r.drive.Unlink(r.ctx, r.ino, name)
	}
	return r.end(err)
}

// Rmdir answers rmdir(2).
func (fs *filesystem) Rmdir(_ <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	r, err := fs.beginChange("rmdir", header)
	if err == nil {
		err = r.drive.Rmdir(r.ctx, r.ino, name)
	}
	return r.end(err)
}

// Rename answers renameat2(2).
func (fs *filesystem) Rename(_ <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	r, err := fs.beginChange("rename", &in.InHeader)
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
	return r.end(r.drive.Rename(r.ctx, blobstore.Rename{
		Parent: r.ino, Name: oldName,
		NewParent: newParent, NewName: newName,
		Mode: mode,
	}))
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

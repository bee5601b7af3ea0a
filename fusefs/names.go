package fusefs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// newNode describes a node that the caller of a request makes. The kernel has applied the umask.
func (fs *filesystem) newNode(caller *fuse.InHeader, mode uint32) blobstore.NewNode {
	return blobstore.NewNode{Mode: mode, UID: fs.ids.uid(caller.Uid), GID: fs.ids.gid(caller.Gid)}
}

// makeNode makes a node in the folder that a request is about.
func (fs *filesystem) makeNode(operation string, caller *fuse.InHeader, name string, node blobstore.NewNode, out *fuse.EntryOut) fuse.Status {
	r, err := fs.beginChange(operation, caller.NodeId)
	if err != nil {
		return r.end(err)
	}
	attr, err := fs.drive.Make(r.ctx, inoOf(caller.NodeId), name, node)
	if err != nil {
		return r.endNode(err)
	}
	fs.fillEntry(out, &attr)
	return r.end(nil)
}

// Mknod answers mknod(2), also for regular files.
func (fs *filesystem) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	node := fs.newNode(&in.InHeader, in.Mode)
	node.Rdev = in.Rdev
	return fs.makeNode("mknod", &in.InHeader, name, node, out)
}

// Mkdir answers mkdir(2).
func (fs *filesystem) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return fs.makeNode("mkdir", &in.InHeader, name, fs.newNode(&in.InHeader, unix.S_IFDIR|in.Mode&permissions), out)
}

// Symlink answers symlink(2). The link's own mode means nothing and is always the same, symlink(7).
func (fs *filesystem) Symlink(_ <-chan struct{}, header *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	node := fs.newNode(header, unix.S_IFLNK|0o777)
	node.Target = target
	return fs.makeNode("symlink", header, name, node, out)
}

// Readlink answers readlink(2).
func (fs *filesystem) Readlink(cancel <-chan struct{}, header *fuse.InHeader) ([]byte, fuse.Status) {
	r := fs.beginWaiting("readlink", header, cancel)
	target, err := fs.drive.Readlink(r.ctx, inoOf(header.NodeId))
	if err != nil {
		return nil, r.endNode(err)
	}
	return []byte(target), r.end(nil)
}

// Link answers link(2).
func (fs *filesystem) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	r, err := fs.beginChange("link", in.NodeId)
	if err != nil {
		return r.end(err)
	}
	attr, err := fs.drive.Link(r.ctx, inoOf(in.Oldnodeid), inoOf(in.NodeId), name)
	if err != nil {
		return r.endNode(err)
	}
	fs.fillEntry(out, &attr)
	return r.end(nil)
}

// Unlink answers unlink(2).
func (fs *filesystem) Unlink(_ <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	r, err := fs.beginChange("unlink", header.NodeId)
	if err == nil {
		err = fs.drive.Unlink(r.ctx, inoOf(header.NodeId), name)
	}
	return r.end(err)
}

// Rmdir answers rmdir(2).
func (fs *filesystem) Rmdir(_ <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	r, err := fs.beginChange("rmdir", header.NodeId)
	if err == nil {
		err = fs.drive.Rmdir(r.ctx, inoOf(header.NodeId), name)
	}
	return r.end(err)
}

// Rename answers renameat2(2).
func (fs *filesystem) Rename(_ <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	r, err := fs.beginChange("rename", in.NodeId)
	if err != nil {
		return r.end(err)
	}
	mode, err := renameMode(in.Flags)
	if err != nil {
		return r.end(err)
	}
	return r.end(fs.drive.Rename(r.ctx, blobstore.Rename{
		Parent: inoOf(in.NodeId), Name: oldName,
		NewParent: inoOf(in.Newdir), NewName: newName,
		Mode: mode,
	}))
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

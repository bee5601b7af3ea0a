package fusefs

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// Writing, truncating and changing the owner of a file take its set-user-ID and set-group-ID bits away (inode(7)), unless root
// writes. With FUSE_HANDLE_KILLPRIV_V2 (linux/fuse.h) that is for the file system to do: the kernel says in a request when it is
// due, knowing the caller's capabilities, except for fallocate(2) and copy_file_range(2), where it says nothing.

// hasPrivileges says whether there are bits to take away.
func hasPrivileges(mode uint32) bool { return blobstore.DropPriv(mode) != mode }

// killPrivileges takes the bits away from an open node. As every write of an ordinary user asks for it, and hardly a file has
// such bits, that a node has none is believed for as long as the kernel believes its attributes.
func killPrivileges(ctx context.Context, node *openNode) error {
	node.privileges.Lock()
	defer node.privileges.Unlock()
	now := time.Now()
	if now.Sub(node.plain) < attrTimeout {
		return nil
	}
	attr, err := node.drive.Attr(ctx, node.ino)
	if err != nil {
		return err
	}
	if hasPrivileges(attr.Mode) {
		if _, err := node.drive.SetAttr(ctx, node.ino, blobstore.AttrChange{Set: blobstore.SetKillPriv}); err != nil {
			return err
		}
	}
	node.plain = now
	return nil
}

// killUnlessRoot is killPrivileges where the kernel does not say whether the caller may keep the bits (CAP_FSETID).
func killUnlessRoot(ctx context.Context, node *openNode, uid uint32) error {
	if uid == 0 {
		return nil
	}
	return killPrivileges(ctx, node)
}

// killSpecial takes the bits away from a special file that has been given a new owner, and returns its attributes as they are
// then. A drive does it for regular files alone (blobstore.SetKillPriv); that it takes a second step here is no danger, as there is
// nothing in a special file to run.
func killSpecial(ctx context.Context, d *drive, a *blobstore.Attr) (blobstore.Attr, error) {
	switch a.Type() {
	case unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR, unix.S_IFBLK:
	default:
		return *a, nil
	}
	before := regular(a.Mode) // whose rule is the same
	mode := blobstore.DropPriv(before)
	if mode == before {
		return *a, nil
	}
	return d.SetAttr(ctx, a.Ino, blobstore.AttrChange{Set: blobstore.SetMode, Mode: mode & permissions})
}

// keepOwner says what chown(2) changes that is given neither an owner nor a group: it takes the bits away too, which is for the owner
// to do (setattr_prepare of fs/attr.c). From others the kernel asks for the same, for nothing, before they write. Then the write takes the
// bits away, unless the kernel does it by itself.
func (r *request) keepOwner() (blobstore.AttrSet, error) {
	attr, err := r.drive.Attr(r.ctx, r.ino)
	switch {
	case err != nil:
		return 0, err
	case attr.IsDir():
		return 0, nil
	case r.caller == 0 || r.caller == r.drive.ids.uid(attr.UID) || r.fs.handles.passesWrites(r.node):
		return blobstore.SetKillPriv, nil
	}
	return 0, nil
}

// seenMode takes note of a mode that a node has been given.
func (fs *filesystem) seenMode(id uint64, mode uint32) {
	if !hasPrivileges(mode) {
		return
	}
	if node := fs.handles.node(id); node != nil {
		node.privileges.Lock()
		defer node.privileges.Unlock()
		node.plain = time.Time{}
	}
}

// capabilityXattr is the extended attribute for which the kernel asks before the first write to each file, to remove it
// (cap_inode_need_killpriv). Every file of a copied tree would be asked for.
const capabilityXattr = "security.capability"

// hasNoCapability says that a node was made through this mount, is still open since, and was given no capability: the
// kernel's question can be answered without the drive.
func (fs *filesystem) hasNoCapability(id uint64, xattr string) bool {
	if xattr != capabilityXattr {
		return false
	}
	node := fs.handles.node(id)
	return node != nil && node.made && !node.labelled.Load()
}

func (fs *filesystem) seenXattr(id uint64, xattr string) {
	if xattr != capabilityXattr {
		return
	}
	if node := fs.handles.node(id); node != nil {
		node.labelled.Store(true)
	}
}

// The type bits are not the caller's to choose.
func regular(mode uint32) uint32 { return unix.S_IFREG | mode&permissions }

// permissions are the 12 bits of a mode that chmod(2) sets.
const permissions = 0o7777

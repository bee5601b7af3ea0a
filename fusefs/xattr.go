package fusefs

import (
	"errors"
	"slices"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// errTooSmall is a buffer that an attribute does not fit in; getxattr(2).
var errTooSmall = errors.New("the value does not fit in the buffer")

// aclXattrs is how the access lists of acl(5) are reached. The kernel would not enforce them here, so they can't be set: a
// list that is kept but has no effect would deceive.
const aclXattrs = "system.posix_acl_"

// selinuxXattr is where labels of SELinux are. The kernel gives the files of a FUSE mount one label for all (context= of mount(8)), so none is kept;
// ls(1) asks for it, and asks for no others once it has been told that there are none.
const selinuxXattr = "security.selinux"

// namespaces are those of xattr(7); the kernel leaves it to the file system to refuse others.
var namespaces = []string{"user.", "trusted.", "security.", "system."}

func checkXattr(name string) error {
	known := func(namespace string) bool { return len(name) > len(namespace) && strings.HasPrefix(name, namespace) }
	if strings.HasPrefix(name, aclXattrs) || name == selinuxXattr || !slices.ContainsFunc(namespaces, known) {
		return blobstore.ErrNotSupported
	}
	return nil
}

// GetXAttr answers getxattr(2). With no room in dest it answers how much there should be.
func (fs *filesystem) GetXAttr(cancel <-chan struct{}, header *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	r, err := fs.beginWaiting(opGetxattr, header, cancel)
	if err != nil {
		return 0, r.end(err)
	}
	if err := checkXattr(name); err != nil {
		return 0, r.end(err)
	}
	if fs.hasNoCapability(r.node, name) {
		return 0, r.end(blobstore.ErrNoXattr)
	}
	value, err := r.drive.GetXattr(r.ctx, r.ino, name)
	if err != nil {
		return 0, r.endNode(err)
	}
	return putXattr(&r, dest, value)
}

// trustedXattrs begin the names that only root sees (xattr(7)); the kernel refuses to give their values to others.
const trustedXattrs = "trusted."

// ListXAttr answers listxattr(2): the names, each with a NUL after it.
func (fs *filesystem) ListXAttr(cancel <-chan struct{}, header *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	r, err := fs.beginWaiting(opListxattr, header, cancel)
	if err != nil {
		return 0, r.end(err)
	}
	names, err := r.drive.ListXattr(r.ctx, r.ino)
	if err != nil {
		return 0, r.endNode(err)
	}
	var list []byte
	for _, name := range names {
		if r.caller != 0 && strings.HasPrefix(name, trustedXattrs) {
			continue
		}
		list = append(append(list, name...), 0)
	}
	return putXattr(&r, dest, list)
}

func putXattr(r *request, dest, value []byte) (uint32, fuse.Status) {
	size := uint32(len(value))
	switch {
	case len(dest) == 0:
		return size, r.end(nil)
	case len(value) > len(dest):
		return size, r.end(errTooSmall)
	}
	copy(dest, value)
	return size, r.end(nil)
}

// facts are what a drive tells of its assets, which nobody can change.
var facts = []string{
	blobstore.XattrID, blobstore.XattrType, blobstore.XattrSHA256, blobstore.XattrWidth, blobstore.XattrHeight, blobstore.XattrTaken, blobstore.XattrCreated,
	blobstore.XattrAccessCount, blobstore.XattrLastAccessed,
}

// SetXAttr answers setxattr(2).
func (fs *filesystem) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, name string, value []byte) fuse.Status {
	r, err := fs.beginChange(opSetxattr, &in.InHeader)
	if err != nil {
		return r.end(err)
	}
	if err := checkXattr(name); err != nil {
		return r.end(err)
	}
	mode, err := xattrMode(in.Flags)
	if err != nil {
		return r.end(err)
	}
	fs.seenXattr(r.node, name)
	return r.endFact(name, r.drive.SetXattr(r.ctx, r.ino, name, value, mode))
}

// endFact is endNode for a change of an extended attribute. What a drive knows of a file can't be changed, but it is listed, and programs that copy files with
// all attributes (cp, mv, rsync, tar) would complain or fail: so they are told that it was done, and the copy has what is known of itself.
func (r *request) endFact(name string, err error) fuse.Status {
	if errors.Is(err, blobstore.ErrPermission) && slices.Contains(facts, name) {
		r.op, err = opSetFact, nil
	}
	return r.endNode(err)
}

// xattrMode decodes the flags of setxattr(2).
func xattrMode(flags uint32) (blobstore.XattrMode, error) {
	switch flags {
	case 0:
		return blobstore.XattrSet, nil
	case unix.XATTR_CREATE:
		return blobstore.XattrCreate, nil
	case unix.XATTR_REPLACE:
		return blobstore.XattrReplace, nil
	}
	return 0, blobstore.ErrInvalid
}

// RemoveXAttr answers removexattr(2).
func (fs *filesystem) RemoveXAttr(_ <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	r, err := fs.beginChange(opRemovexattr, header)
	if err != nil {
		return r.end(err)
	}
	if err := checkXattr(name); err != nil {
		return r.end(err)
	}
	return r.endFact(name, r.drive.RemoveXattr(r.ctx, r.ino, name))
}

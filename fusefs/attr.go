package fusefs

import (
	"math"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"mediafs/blobstore"
)

// GetAttr answers stat(2). A handle that comes with it adds nothing: a node that is open is there.
func (fs *filesystem) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	r, err := fs.beginWaiting(opGetattr, &in.InHeader, cancel)
	if err != nil {
		return r.end(err)
	}
	attr, err := r.drive.Attr(r.ctx, r.ino)
	if err != nil {
		return r.endNode(err)
	}
	r.fillAttr(out, &attr)
	return r.end(nil)
}

// SetAttr answers chmod(2), chown(2), truncate(2) and utimensat(2).
func (fs *filesystem) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	r, err := fs.beginChange(opSetattr, &in.InHeader)
	if err != nil {
		return r.end(err)
	}
	change, err := attrChange(in, r.drive.ids)
	if err != nil {
		return r.end(err)
	}
	if change.Set == 0 {
		if change.Set, err = r.keepOwner(); err != nil {
			return r.endNode(err)
		}
	}
	if change.Set.Has(blobstore.SetMtime) && !change.Set.Has(blobstore.SetSize) && fs.handles.mayBeMapped(r.node) {
		// The kernel sends changes of mapped pages when it likes, and each sets the mtime. Those that were made before it is set
		// here have to be stored before. With the size the kernel has done so itself, and is not to be called back.
		fs.dropContent(r.node)
	}
	attr, err := r.drive.SetAttr(r.ctx, r.ino, change)
	if err == nil && change.Set.Has(blobstore.SetKillPriv) {
		attr, err = killSpecial(r.ctx, r.drive, &attr)
	}
	if err != nil {
		return r.endNode(err)
	}
	fs.seenMode(r.node, attr.Mode)
	r.fillAttr(out, &attr)
	return r.end(nil)
}

// attrChange decodes struct fuse_setattr_in of linux/fuse.h.
func attrChange(in *fuse.SetAttrIn, ids ids) (blobstore.AttrChange, error) {
	var c blobstore.AttrChange
	if mode, ok := in.GetMode(); ok {
		c.Set |= blobstore.SetMode
		c.Mode = mode
	}
	if uid, ok := in.GetUID(); ok {
		c.Set |= blobstore.SetUID
		c.UID = ids.uid(uid)
	}
	if gid, ok := in.GetGID(); ok {
		c.Set |= blobstore.SetGID
		c.GID = ids.gid(gid)
	}
	if size, ok := in.GetSize(); ok {
		if size > math.MaxInt64 {
			return c, blobstore.ErrTooLarge
		}
		c.Set |= blobstore.SetSize
		c.Size = int64(size)
	}
	now := time.Now().UnixNano()
	if in.Valid&fuse.FATTR_ATIME != 0 {
		c.Set |= blobstore.SetAtime
		c.AtimeNs = now
		if in.Valid&fuse.FATTR_ATIME_NOW == 0 {
			c.AtimeNs = joinTime(in.Atime, in.Atimensec)
		}
	}
	if in.Valid&fuse.FATTR_MTIME != 0 {
		c.Set |= blobstore.SetMtime
		c.MtimeNs = now
		if in.Valid&fuse.FATTR_MTIME_NOW == 0 {
			c.MtimeNs = joinTime(in.Mtime, in.Mtimensec)
		}
	}
	// A new owner takes the bits away whoever gives it (chown_common of fs/open.c), from all but folders. Drives do so with
	// regular files, killSpecial with the rest.
	if in.Valid&fuse.FATTR_KILL_SUIDGID != 0 || c.Set&(blobstore.SetUID|blobstore.SetGID) != 0 {
		c.Set |= blobstore.SetKillPriv
	}
	return c, nil
}

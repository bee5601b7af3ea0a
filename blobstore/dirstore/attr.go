package dirstore

import (
	"context"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

func nanoseconds(t unix.StatxTimestamp) int64 { return t.Sec*1e9 + int64(t.Nsec) }

// attr is what a drive's user is told of an inode.
func (d *Drive) attr(st *unix.Statx_t) blobstore.Attr {
	const statBlock = 512 // bytes in a unit of st_blocks, inode(7)
	return blobstore.Attr{
		Ino:        d.ino(st.Ino),
		Generation: uint64(identityOf(st).birth),
		Mode:       uint32(st.Mode),
		Nlink:      st.Nlink,
		UID:        st.Uid,
		GID:        st.Gid,
		Rdev:       encodeDevice(st.Rdev_major, st.Rdev_minor),
		Size:       int64(st.Size),
		Allocated:  int64(st.Blocks) * statBlock,
		AtimeNs:    nanoseconds(st.Atime),
		MtimeNs:    nanoseconds(st.Mtime),
		CtimeNs:    nanoseconds(st.Ctime),
	}
}

// encodeDevice is new_encode_dev of the kernel's linux/kdev_t.h.
func encodeDevice(major, minor uint32) uint32 {
	return minor&0xff | major<<8 | minor&^0xff<<12
}

// Attr returns the attributes of a node.
func (d *Drive) Attr(ctx context.Context, ino blobstore.Ino) (attr blobstore.Attr, err error) {
	defer wrap("attributes", ino, &err)
	n, err := d.hold(ctx, ino)
	if err != nil {
		return attr, err
	}
	defer d.drop(n)
	var st unix.Statx_t
	if err := d.stat(n, &st); err != nil {
		return attr, err
	}
	return d.attr(&st), nil
}

// SetAttr changes attributes. A change that fails leaves the ones made before it: the size, then the owner, the mode, the
// times.
func (d *Drive) SetAttr(ctx context.Context, ino blobstore.Ino, change blobstore.AttrChange) (attr blobstore.Attr, err error) {
	defer wrap("set attributes", ino, &err)
	n, err := d.hold(ctx, ino)
	if err != nil {
		return attr, err
	}
	defer d.drop(n)
	var st unix.Statx_t
	fd, err := d.open(n, &st)
	if err != nil {
		return attr, err
	}
	defer fd.release()
	d.changed.Store(true)
	changing := d.changing(n)
	changing.Lock()
	defer changing.Unlock()
	if err := statx(fd.fd, "", &st); err != nil {
		return attr, err
	}
	if change.Set.Has(blobstore.SetSize) {
		if err := d.setSize(n, fd, uint32(st.Mode), change.Size); err != nil {
			return attr, err
		}
		if st.Nlink > 0 || d.isOrphan(n) {
			d.changedFrom(&st, fd.fd, 0)
		}
		d.settleQuota(ctx)
		d.describer.changed(n)
	}
	if err := setOwner(fd, &st, change); err != nil {
		return attr, err
	}
	if err := setTimes(fd, change); err != nil {
		return attr, err
	}
	// The mode comes last: whoever sees it, though this ends halfway, sees the rest too.
	if err := setMode(fd, uint32(st.Mode), change); err != nil {
		return attr, err
	}
	if err := statx(fd.fd, "", &st); err != nil {
		return attr, err
	}
	if change.Set.Has(blobstore.SetSize) || change.Set.Has(blobstore.SetMtime) {
		d.inPlace.noteUnlessNew(n.id)
	}
	return d.attr(&st), nil
}

func (d *Drive) setSize(n *node, fd *descriptor, mode uint32, size int64) error {
	switch {
	case mode&unix.S_IFMT == unix.S_IFDIR:
		return blobstore.ErrIsDir
	case mode&unix.S_IFMT != unix.S_IFREG || size < 0:
		return blobstore.ErrInvalid
	case size > blobstore.MaxFileSize:
		return blobstore.ErrTooLarge
	}
	// Whoever has a file open for writing may cut it whatever its mode is by now.
	if open := d.openFile(n, blobstore.OpenWrite); open != nil {
		defer open.release()
		return retry(func() error { return unix.Ftruncate(open.fd, size) })
	}
	return retry(func() error { return unix.Truncate(fd.path(), size) })
}

func setOwner(fd *descriptor, st *unix.Statx_t, change blobstore.AttrChange) error {
	const keep = -1 // chown(2)
	uid, gid := keep, keep
	if change.Set.Has(blobstore.SetUID) {
		uid = int(change.UID)
	}
	if change.Set.Has(blobstore.SetGID) {
		gid = int(change.GID)
	}
	if uid == keep && gid == keep {
		return nil
	}
	return unix.Fchownat(fd.fd, "", uid, gid, unix.AT_EMPTY_PATH)
}

// setMode sets the mode that is asked for, or that the change of owner has taken something from: chown(2) clears the
// set-user-ID bit on its own, which here only SetKillPriv does. The mode before all changes is old.
func setMode(fd *descriptor, old uint32, change blobstore.AttrChange) error {
	mode := old
	if change.Set.Has(blobstore.SetMode) {
		mode = old&unix.S_IFMT | change.Mode&permissions
	}
	if change.Set.Has(blobstore.SetKillPriv) {
		mode = blobstore.DropPriv(mode)
	}
	owner := change.Set.Has(blobstore.SetUID) || change.Set.Has(blobstore.SetGID)
	wanted := change.Set.Has(blobstore.SetMode) // whose error is reported, and ctime changes, even if it is the same
	special := old&^plain&permissions != 0 && old&unix.S_IFMT == unix.S_IFREG
	if !wanted && mode == old && !(owner && special) {
		return nil
	}
	return unix.Chmod(fd.path(), mode&permissions)
}

func setTimes(fd *descriptor, change blobstore.AttrChange) error {
	omit := unix.Timespec{Nsec: unix.UTIME_OMIT}
	times := [2]unix.Timespec{omit, omit}
	if change.Set.Has(blobstore.SetAtime) {
		times[0] = unix.NsecToTimespec(change.AtimeNs)
	}
	if change.Set.Has(blobstore.SetMtime) {
		times[1] = unix.NsecToTimespec(change.MtimeNs)
	}
	if times[0] == omit && times[1] == omit {
		return nil
	}
	return unix.UtimesNanoAt(fd.fd, "", times[:], unix.AT_EMPTY_PATH)
}

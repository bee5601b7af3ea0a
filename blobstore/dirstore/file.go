package dirstore

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// file is an open regular file.
type file struct {
	drive  *Drive
	node   *node
	d      *descriptor
	flags  blobstore.OpenFlags
	closed atomic.Bool
	noting noting
	next   *file // of those open on the node; guarded by Drive.mu
}

var _ interface {
	blobstore.File
	blobstore.Backed
} = (*file)(nil)

// accessMode is how the file on disk is opened. OpenAppend is not passed on: with O_APPEND pwrite(2) would not write where
// it is told to.
func accessMode(flags blobstore.OpenFlags) int {
	switch {
	case flags.Has(blobstore.OpenRead | blobstore.OpenWrite):
		return unix.O_RDWR
	case flags.Has(blobstore.OpenWrite):
		return unix.O_WRONLY
	}
	return unix.O_RDONLY
}

// Open opens a regular file.
func (d *Drive) Open(ctx context.Context, ino blobstore.Ino, flags blobstore.OpenFlags) (_ blobstore.File, err error) {
	defer wrap("open", ino, &err)
	n, err := d.hold(ctx, ino)
	if err != nil {
		return nil, err
	}
	defer d.drop(n)
	var st unix.Statx_t
	at, err := d.open(n, &st)
	if err != nil {
		return nil, err
	}
	defer at.release()
	fd, err := d.reopen(at, &st, flags)
	if err != nil {
		return nil, err
	}
	f := &file{drive: d, node: n, d: fd, flags: flags}
	if f.changes() {
		now := time.Now()
		d.inPlace.note(n.id)
		f.noting.at(now)
	}
	d.mu.Lock()
	n.refs++
	n.opened(f)
	d.mu.Unlock()
	return d.shown(ctx, f), nil
}

// changes says whether a file was opened to be changed.
func (f *file) changes() bool {
	return f.flags.Has(blobstore.OpenWrite) || f.flags.Has(blobstore.OpenTruncate)
}

// openThere opens an entry that Create has found to be there.
func (d *Drive) openThere(folder *descriptor, name string, flags blobstore.OpenFlags, st *unix.Statx_t) (*descriptor, error) {
	fd, err := openPath(folder.fd, name, 0, beneath)
	if err != nil {
		return nil, err
	}
	at := newDescriptor(fd)
	defer at.release()
	if err := d.statAt(at, "", st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return nil, blobstore.ErrLoop
	}
	opened, err := d.reopen(at, st, flags)
	if err != nil {
		return nil, err
	}
	if err := statx(opened.fd, "", st); err != nil {
		opened.release()
		return nil, err
	}
	return opened, nil
}

// reopen opens for content what is open as a place and described by st.
func (d *Drive) reopen(at *descriptor, st *unix.Statx_t, flags blobstore.OpenFlags) (*descriptor, error) {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFDIR:
		return nil, blobstore.ErrIsDir
	default:
		return nil, blobstore.ErrInvalid
	}
	access := accessMode(flags)
	if flags.Has(blobstore.OpenTruncate) {
		access |= unix.O_TRUNC
	}
	quiet := 0
	if flags.Has(blobstore.OpenNoAtime) {
		quiet = unix.O_NOATIME
	}
	fd, err := openat(unix.AT_FDCWD, at.path(), access|quiet, 0)
	if quiet != 0 && errors.Is(err, unix.EPERM) { // only the owner may leave no trace
		fd, err = openat(unix.AT_FDCWD, at.path(), access, 0)
	}
	if err != nil {
		return nil, err
	}
	if flags.Has(blobstore.OpenWrite) || flags.Has(blobstore.OpenTruncate) {
		d.changed.Store(true)
	}
	if flags.Has(blobstore.OpenTruncate) && st.Nlink > 0 {
		d.changedFrom(st, fd, 0)
	}
	return newDescriptor(fd), nil
}

// use returns the descriptor for one operation; the caller releases it.
func (f *file) use(ctx context.Context) (*descriptor, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if f.closed.Load() || !f.d.acquire() {
		return nil, blobstore.ErrInvalid
	}
	return f.d, nil
}

// Descriptor is the open file.
func (f *file) Descriptor() int { return f.d.fd }

// ReadAt reads until p is full or the file ends.
func (f *file) ReadAt(ctx context.Context, p []byte, off int64) (n int, err error) {
	defer wrap("read", f.drive.number(f.node), &err)
	fd, err := f.use(ctx)
	if err != nil {
		return 0, err
	}
	defer fd.release()
	if off < 0 {
		return 0, blobstore.ErrInvalid
	}
	p = p[:min(int64(len(p)), math.MaxInt64-off)] // no file is longer, and pread(2) refuses to look
	for n < len(p) {
		got, err := unix.Pread(fd.fd, p[n:], off+int64(n))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return n, err
		case got == 0:
			return n, nil
		default:
			n += got
		}
	}
	return n, nil
}

// WriteAt writes all of p, or as much as the drive's quota has room for, or tells how much was written before the error.
func (f *file) WriteAt(ctx context.Context, p []byte, off int64) (n int, err error) {
	defer wrap("write", f.drive.number(f.node), &err)
	fd, err := f.use(ctx)
	if err != nil {
		return 0, err
	}
	defer fd.release()
	if err := checkRange(off, int64(len(p))); err != nil {
		return 0, err
	}
	err = f.growing(ctx, fd, off, int64(len(p)), func(most int64) error {
		for n < int(most) {
			got, err := unix.Pwrite(fd.fd, p[n:most], off+int64(n))
			switch {
			case errors.Is(err, unix.EINTR):
			case err != nil:
				return err
			default:
				n += got
			}
		}
		return nil
	})
	f.written()
	return n, err
}

// checkRange gives the error of bytes that no file can hold.
func checkRange(off, n int64) error {
	switch {
	case off < 0 || n < 0:
		return blobstore.ErrInvalid
	case off > blobstore.MaxFileSize || n > blobstore.MaxFileSize-off:
		return blobstore.ErrTooLarge
	}
	return nil
}

// Sync is fsync(2). The file systems of Linux that keep a journal (ext4, XFS, Btrfs) write the name of a new file with it.
func (f *file) Sync(ctx context.Context) (err error) {
	defer wrap("sync", f.drive.number(f.node), &err)
	fd, err := f.use(ctx)
	if err != nil {
		return err
	}
	defer fd.release()
	return retry(func() error { return unix.Fsync(fd.fd) })
}

// Flush does nothing: what was written is in the kernel's page cache already, where it outlives this process, and the kernel
// reports at the next Sync of any file then open on the node what it could not write. So close(2) promises here what it
// promises on the file system below, not that the machine may lose power.
func (f *file) Flush(ctx context.Context) (err error) {
	defer wrap("flush", f.drive.number(f.node), &err)
	fd, err := f.use(ctx)
	if err != nil {
		return err
	}
	fd.release()
	if f.changes() {
		f.written() // by the kernel itself, maybe
	}
	f.drive.settleQuota(ctx)
	return nil
}

// Allocate is fallocate(2).
func (f *file) Allocate(ctx context.Context, mode blobstore.AllocateMode, off, n int64) (err error) {
	defer wrap("allocate", f.drive.number(f.node), &err)
	flags, ok := map[blobstore.AllocateMode]uint32{
		blobstore.AllocateExtend:    0,
		blobstore.AllocateKeepSize:  unix.FALLOC_FL_KEEP_SIZE,
		blobstore.AllocatePunchHole: unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE,
		blobstore.AllocateZero:      unix.FALLOC_FL_ZERO_RANGE,
		blobstore.AllocateZeroKeep:  unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE,
	}[mode]
	if !ok || n <= 0 {
		return blobstore.ErrInvalid
	}
	if err := checkRange(off, n); err != nil {
		return err
	}
	fd, err := f.use(ctx)
	if err != nil {
		return err
	}
	defer fd.release()
	allocate := func() error { return retry(func() error { return unix.Fallocate(fd.fd, flags, off, n) }) }
	defer f.written()
	return f.allocating(ctx, fd, mode, off, n, allocate)
}

// Seek is lseek(2), whose only other effect, on the position of the descriptor, means nothing here.
func (f *file) Seek(ctx context.Context, off int64, whence blobstore.SeekWhence) (at int64, err error) {
	defer wrap("seek", f.drive.number(f.node), &err)
	fd, err := f.use(ctx)
	if err != nil {
		return 0, err
	}
	defer fd.release()
	switch whence {
	case blobstore.SeekData:
		return unix.Seek(fd.fd, off, unix.SEEK_DATA)
	case blobstore.SeekHole:
		return unix.Seek(fd.fd, off, unix.SEEK_HOLE)
	}
	return 0, blobstore.ErrInvalid
}

// Close lets the file go. Closing it once more does nothing.
func (f *file) Close() (err error) {
	if f.closed.Swap(true) {
		return nil
	}
	defer wrap("close", f.drive.number(f.node), &err)
	d, n := f.drive, f.node
	d.mu.Lock()
	n.closed(f)
	last := n.files == nil && d.quota.orphans[n]
	if last {
		delete(d.quota.orphans, n)
	}
	d.mu.Unlock()
	if last {
		d.buried(f.d)
	}
	if f.changes() {
		f.written()
		d.describer.changed(n)
	}
	err = f.d.close()
	d.drop(n)
	return err
}

// CopyRange is copy_file_range(2).
func (d *Drive) CopyRange(ctx context.Context, src blobstore.File, srcOff int64, dst blobstore.File, dstOff, n int64) (copied int64, err error) {
	from, fromOurs := ownFile(src)
	to, toOurs := ownFile(dst)
	if !fromOurs || !toOurs || from.drive != d || to.drive != d {
		return 0, blobstore.ErrCrossDevice
	}
	defer wrap("copy from", d.number(from.node), &err)
	in, err := from.use(ctx)
	if err != nil {
		return 0, err
	}
	defer in.release()
	out, err := to.use(ctx)
	if err != nil {
		return 0, err
	}
	defer out.release()

	var st unix.Statx_t
	if err := statx(in.fd, "", &st); err != nil {
		return 0, err
	}
	if srcOff < 0 || n < 0 {
		return 0, blobstore.ErrInvalid
	}
	n = max(0, min(n, int64(st.Size)-srcOff))
	if err := checkRange(dstOff, n); err != nil {
		return 0, err
	}
	if from.node == to.node && srcOff < dstOff+n && dstOff < srcOff+n {
		return 0, blobstore.ErrInvalid
	}
	err = to.growing(ctx, out, dstOff, n, func(most int64) error {
		for copied < most {
			got, err := copySome(ctx, in, out, srcOff+copied, dstOff+copied, most-copied)
			if err != nil && copied == 0 {
				return err
			}
			if err != nil || got == 0 {
				break // what was copied counts; the caller meets the error when it goes on
			}
			copied += int64(got)
		}
		return nil //nolint:nilerr // see above
	})
	to.written()
	return copied, err
}

// copySome copies as much as may go on while nobody asks whether the context has ended.
func copySome(ctx context.Context, in, out *descriptor, srcOff, dstOff, n int64) (copied int, err error) {
	const piece = 64 << 20
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	err = retry(func() error {
		// The call moves the offsets it is given.
		from, to := srcOff, dstOff
		copied, err = unix.CopyFileRange(in.fd, &from, out.fd, &to, int(min(n, piece)), 0)
		return err
	})
	for _, e := range []error{unix.EXDEV, unix.EINVAL, unix.ENOSYS, unix.EOPNOTSUPP} {
		if errors.Is(err, e) {
			return 0, blobstore.ErrNotSupported
		}
	}
	return copied, err
}

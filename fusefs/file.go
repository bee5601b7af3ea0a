package fusefs

import (
	"cmp"
	"errors"
	"fmt"
	"math"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// Create makes a regular file and opens it. The kernel asks for it when it has found no such name, and so without having checked
// whether the caller may open what has come to be there in the meantime. So a file that is there is never opened here: without
// O_EXCL, ESTALE has the kernel look again (LOOKUP_REVAL), check, and ask to open what it finds.
func (fs *filesystem) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	r, err := fs.beginChange(opCreate, &in.InHeader)
	r.at.name = name
	if err != nil {
		return r.end(err)
	}
	flags := openFlags(in.Flags)&^blobstore.OpenTruncate | blobstore.OpenExclusive
	node := blobstore.NewNode{Mode: regular(in.Mode)}
	node.UID, node.GID = r.callerIDs(&in.InHeader)
	file, attr, _, err := r.drive.Create(r.ctx, r.ino, name, node, flags)
	if err != nil {
		if in.Flags&unix.O_EXCL == 0 && errors.Is(err, blobstore.ErrExist) {
			err = fmt.Errorf("%w: %w", blobstore.ErrStale, err)
		}
		return r.endNode(err)
	}
	if err := r.fillEntry(&out.EntryOut, &attr, r.at); err != nil {
		return r.end(errors.Join(err, file.Close()))
	}
	r.fillOpen(&out.OpenOut, out.NodeId, &attr, file, flags, true)
	return r.end(nil)
}

// Open opens a regular file.
func (fs *filesystem) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	flags := openFlags(in.Flags)
	if fs.readOnly {
		flags |= blobstore.OpenNoAtime
	}
	begin := func() (request, error) { return fs.beginWaiting(opOpen, &in.InHeader, cancel) }
	if flags.Has(blobstore.OpenTruncate) || flags.Has(blobstore.OpenWrite) {
		begin = func() (request, error) { return fs.beginChange(opOpen, &in.InHeader) }
	}
	r, err := begin()
	if err != nil {
		return r.end(err)
	}
	file, err := r.drive.Open(r.ctx, r.ino, flags)
	if err != nil {
		return r.endNode(err)
	}
	attr := blobstore.Attr{Ino: r.ino}
	kill := in.Mode&fuse.OPEN_KILL_SUIDGID != 0
	if _, ok := file.(blobstore.Backed); ok || kill {
		attr, err = r.drive.Attr(r.ctx, r.ino) // the mode also decides whether it is passed through
	}
	if err == nil && kill && hasPrivileges(attr.Mode) {
		attr, err = r.drive.SetAttr(r.ctx, r.ino, blobstore.AttrChange{Set: blobstore.SetKillPriv})
	}
	if err != nil {
		return r.endNode(errors.Join(err, file.Close()))
	}
	r.fillOpen(out, r.node, &attr, file, flags, false)
	return r.end(nil)
}

// fillOpen gives the kernel a handle of an open file of the node that it calls id.
func (r *request) fillOpen(out *fuse.OpenOut, id uint64, attr *blobstore.Attr, file blobstore.File, flags blobstore.OpenFlags, made bool) {
	open := &openFile{
		file: file, caller: r.caller,
		readable: flags.Has(blobstore.OpenRead), writable: flags.Has(blobstore.OpenWrite), truncated: flags.Has(blobstore.OpenTruncate),
	}
	out.Fh = r.fs.handles.addFile(r.drive, id, attr, open, made)
	if open.node.backing != 0 {
		out.OpenFlags |= fuse.FOPEN_PASSTHROUGH
		out.BackingID = open.node.backing
	}
	open.changes = open.writable || made
	// What can't be read can't be mapped, so all that is written to a plain file is in it when write(2) returns.
	_, plain := file.(blobstore.Backed)
	if !r.fs.locks && (!open.changes || plain && !open.readable) {
		out.OpenFlags |= fuse.FOPEN_NOFLUSH // close(2) has nothing to wait for
	}
}

// openFlags decodes the flags of open(2).
func openFlags(flags uint32) blobstore.OpenFlags {
	var f blobstore.OpenFlags
	switch flags & unix.O_ACCMODE {
	case unix.O_RDONLY:
		f = blobstore.OpenRead
	case unix.O_WRONLY:
		f = blobstore.OpenWrite
	default:
		f = blobstore.OpenRead | blobstore.OpenWrite
	}
	if flags&unix.O_TRUNC != 0 {
		f |= blobstore.OpenTruncate
	}
	if flags&unix.O_APPEND != 0 {
		f |= blobstore.OpenAppend
	}
	if flags&unix.O_NOATIME != 0 {
		f |= blobstore.OpenNoAtime
	}
	return f
}

// spliceFrom is the size in bytes from which on it is quicker to splice a reply from a plain file than to read it here.
const spliceFrom = 64 << 10

// Read answers read(2) and the kernel's read-ahead. buf is as long as what is asked for.
func (fs *filesystem) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	r, err := fs.beginWaiting(opRead, &in.InHeader, cancel)
	if err != nil {
		return nil, r.end(err)
	}
	open, err := fs.handles.file(in.Fh, in.NodeId)
	if err != nil {
		return nil, r.end(err)
	}
	if in.Offset > math.MaxInt64 {
		return nil, r.end(blobstore.ErrInvalid)
	}
	off := int64(in.Offset)
	if backed, ok := open.file.(blobstore.Backed); ok && len(buf) >= spliceFrom {
		fs.counts.read.Add(uint64(there(backed, off, len(buf))))
		return fuse.ReadResultFd(uintptr(backed.Descriptor()), off, len(buf)), r.end(nil)
	}
	n, err := open.file.ReadAt(r.ctx, buf, off)
	if err != nil {
		return nil, r.end(err)
	}
	fs.counts.read.Add(uint64(n))
	return fuse.ReadResultData(buf[:n]), r.end(nil)
}

// there is how many of n bytes from the byte at off on a plain file has: what a splice, of which we hear no more, will read.
func there(file blobstore.Backed, off int64, n int) int64 {
	var st unix.Stat_t
	if err := unix.Fstat(file.Descriptor(), &st); err != nil {
		return int64(n)
	}
	return min(max(st.Size-off, 0), int64(n))
}

// Write answers write(2), and stores the pages of mapped files that programs have changed.
func (fs *filesystem) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	begin := fs.beginChange
	if in.WriteFlags&fuse.WRITE_CACHE != 0 {
		begin = fs.beginUnchecked
	}
	r, err := begin(opWrite, &in.InHeader)
	if err != nil {
		return 0, r.end(err)
	}
	open, err := fs.handles.file(in.Fh, in.NodeId)
	if err != nil {
		return 0, r.end(err)
	}
	if in.Offset > math.MaxInt64 {
		return 0, r.end(blobstore.ErrInvalid)
	}
	if in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0 {
		if err := killPrivileges(r.ctx, open.node); err != nil {
			return 0, r.end(err)
		}
	}
	n, err := open.file.WriteAt(r.ctx, data, int64(in.Offset))
	if err != nil {
		return 0, r.end(err)
	}
	fs.counts.written.Add(uint64(n))
	open.written.Add(int64(n))
	return uint32(n), r.end(nil)
}

// Flush is called at each close(2) of a descriptor, which returns its error.
func (fs *filesystem) Flush(_ <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	r, err := fs.begin(opFlush, &in.InHeader)
	open, noHandle := fs.handles.file(in.Fh, in.NodeId)
	if noHandle != nil {
		return r.end(cmp.Or(err, noHandle))
	}
	if err == nil {
		err = open.file.Flush(r.ctx)
	}
	r.unlock(open.node, open.node.locks.take(func(owner lockOwner, _ uint64) bool { // whatever went wrong before
		return owner == lockOwner{blobstore.LockPosix, in.LockOwner}
	}))
	if !open.changes { // there is nothing that close(2) could fail to store
		err = nil
	}
	return r.end(err)
}

// Fsync answers fsync(2) and fdatasync(2), which are the same here.
func (fs *filesystem) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	r, err := fs.begin(opFsync, &in.InHeader)
	if err != nil {
		return r.end(err)
	}
	open, err := fs.handles.file(in.Fh, in.NodeId)
	if err != nil {
		return r.end(err)
	}
	return r.end(open.file.Sync(r.ctx))
}

// Release closes a handle when its last descriptor has been closed. Nobody waits for the answer, so an error is logged.
func (fs *filesystem) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	r, err := fs.beginUnchecked(opRelease, &in.InHeader)
	if open, _ := fs.handles.file(in.Fh, in.NodeId); open != nil {
		owners, released := open.node.locks.release(in.Fh)
		r.unlock(open.node, owners)
		released()
	}
	if err == nil {
		err = fs.handles.removeFile(in.Fh, in.NodeId)
	}
	r.end(err)
}

// Fallocate answers fallocate(2).
func (fs *filesystem) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	r, err := fs.beginChange(opFallocate, &in.InHeader)
	if err != nil {
		return r.end(err)
	}
	open, err := fs.handles.file(in.Fh, in.NodeId)
	if err != nil {
		return r.end(err)
	}
	mode, err := allocateMode(in.Mode)
	if err != nil {
		return r.end(err)
	}
	switch {
	case in.Length == 0 || in.Offset > math.MaxInt64 || in.Length > math.MaxInt64:
		return r.end(blobstore.ErrInvalid)
	case in.Offset+in.Length > math.MaxInt64:
		return r.end(blobstore.ErrTooLarge)
	}
	if err := killUnlessRoot(r.ctx, open.node, in.Uid); err != nil {
		return r.end(err)
	}
	return r.end(open.file.Allocate(r.ctx, mode, int64(in.Offset), int64(in.Length)))
}

// allocateMode decodes the mode of fallocate(2).
func allocateMode(mode uint32) (blobstore.AllocateMode, error) {
	switch mode {
	case 0:
		return blobstore.AllocateExtend, nil
	case unix.FALLOC_FL_KEEP_SIZE:
		return blobstore.AllocateKeepSize, nil
	case unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE:
		return blobstore.AllocatePunchHole, nil
	case unix.FALLOC_FL_ZERO_RANGE:
		return blobstore.AllocateZero, nil
	case unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE:
		return blobstore.AllocateZeroKeep, nil
	}
	return 0, blobstore.ErrNotSupported
}

// Lseek answers lseek(2) with SEEK_DATA and SEEK_HOLE; the kernel does the others itself.
func (fs *filesystem) Lseek(cancel <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	r, err := fs.beginWaiting(opLseek, &in.InHeader, cancel)
	if err != nil {
		return r.end(err)
	}
	open, err := fs.handles.file(in.Fh, in.NodeId)
	if err != nil {
		return r.end(err)
	}
	if in.Offset > math.MaxInt64 {
		return r.end(blobstore.ErrNoData)
	}
	var whence blobstore.SeekWhence
	switch in.Whence {
	case unix.SEEK_DATA:
		whence = blobstore.SeekData
	case unix.SEEK_HOLE:
		whence = blobstore.SeekHole
	default:
		return r.end(blobstore.ErrInvalid)
	}
	off, err := open.file.Seek(r.ctx, int64(in.Offset), whence)
	if err != nil {
		return r.end(err)
	}
	out.Offset = uint64(off)
	return r.end(nil)
}

// maxCopy is the most bytes that one request copies, so that it ends before its deadline; programs ask again for the rest.
const maxCopy = 256 << 20

// CopyFileRange answers copy_file_range(2). Told EOPNOTSUPP, the kernel copies by reading and writing.
func (fs *filesystem) CopyFileRange(_ <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	header := in.InHeader
	header.NodeId = in.NodeIdOut
	r, err := fs.beginChange(opCopyFileRange, &header)
	if err != nil {
		return 0, r.end(err)
	}
	src, err := fs.handles.file(in.FhIn, in.NodeId)
	if err != nil {
		return 0, r.end(err)
	}
	dst, err := fs.handles.file(in.FhOut, in.NodeIdOut)
	if err != nil {
		return 0, r.end(err)
	}
	if src.node.drive != dst.node.drive {
		return 0, r.end(blobstore.ErrCrossDevice) // the kernel copies by reading and writing then, too
	}
	if in.Flags != 0 || in.OffIn > math.MaxInt64-maxCopy || in.OffOut > math.MaxInt64-maxCopy {
		return 0, r.end(blobstore.ErrInvalid)
	}
	if err := killUnlessRoot(r.ctx, dst.node, in.Uid); err != nil {
		return 0, r.end(err)
	}
	n, err := r.drive.CopyRange(r.ctx, src.file, int64(in.OffIn), dst.file, int64(in.OffOut), int64(min(in.Len, maxCopy)))
	if err != nil {
		return 0, r.end(err)
	}
	dst.written.Add(n)
	fs.counts.copied.Add(uint64(n))
	return uint32(n), r.end(nil)
}

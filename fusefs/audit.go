package fusefs

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// An operation is what a request asks for.
type operation struct {
	name     string           // in the log
	action   blobstore.Action // in the audit log
	recorded bool             // when it succeeds; denials always are
}

// What was written is recorded when the file is closed, once (recordClosed).
var (
	opLookup      = &operation{"lookup", blobstore.ActionLook, false}
	opGetattr     = &operation{"getattr", blobstore.ActionLook, false}
	opReadlink    = &operation{"readlink", blobstore.ActionLook, false}
	opGetxattr    = &operation{"getxattr", blobstore.ActionLook, false}
	opKeptXattr   = &operation{"setxattr", blobstore.ActionLook, false} // of what can't be changed, which is no change
	opListxattr   = &operation{"listxattr", blobstore.ActionLook, false}
	opStatfs      = &operation{"statfs", blobstore.ActionLook, false}
	opOpendir     = &operation{"opendir", blobstore.ActionLook, false}
	opReaddir     = &operation{"readdir", blobstore.ActionLook, false}
	opReaddirplus = &operation{"readdirplus", blobstore.ActionLook, false}
	opReleasedir  = &operation{"releasedir", blobstore.ActionLook, false}
	opRead        = &operation{"read", blobstore.ActionLook, false}
	opLock        = &operation{"lock", blobstore.ActionLook, false}
	opLseek       = &operation{"lseek", blobstore.ActionLook, false}

	opWrite         = &operation{"write", blobstore.ActionWrite, false}
	opCopyFileRange = &operation{"copy_file_range", blobstore.ActionWrite, false}
	opFlush         = &operation{"flush", blobstore.ActionWrite, false}
	opFsync         = &operation{"fsync", blobstore.ActionWrite, false}
	opRelease       = &operation{"release", blobstore.ActionWrite, false}
	opFsyncdir      = &operation{"fsyncdir", blobstore.ActionChange, false}

	opOpen        = &operation{"open", blobstore.ActionOpen, true}
	opCreate      = &operation{"create", blobstore.ActionCreate, true}
	opMknod       = &operation{"mknod", blobstore.ActionCreate, true}
	opMkdir       = &operation{"mkdir", blobstore.ActionCreate, true}
	opSymlink     = &operation{"symlink", blobstore.ActionCreate, true}
	opSetattr     = &operation{"setattr", blobstore.ActionChange, true}
	opSetxattr    = &operation{"setxattr", blobstore.ActionChange, true}
	opRemovexattr = &operation{"removexattr", blobstore.ActionChange, true}
	opFallocate   = &operation{"fallocate", blobstore.ActionChange, true}
	opLink        = &operation{"link", blobstore.ActionLink, true}
	opRename      = &operation{"rename", blobstore.ActionRename, true}
	opUnlink      = &operation{"unlink", blobstore.ActionRemove, true}
	opRmdir       = &operation{"rmdir", blobstore.ActionRemove, true}
)

// isDenial says whether an errno means that something is not allowed. What the kernel denies by itself does not come here: modes and
// owners (default_permissions), and changes of a mount that is read-only as a whole.
func isDenial(errno unix.Errno) bool {
	switch errno {
	case unix.EACCES, unix.EPERM, unix.EROFS, unix.EKEYEXPIRED, unix.EKEYREVOKED:
		return true
	}
	return false
}

// record notes in the drive's audit log how a request ended, if that is to be known.
func (r *request) record(errno unix.Errno) {
	if r.drive == nil || errno == 0 && !r.op.recorded || errno != 0 && !isDenial(errno) {
		return
	}
	event := blobstore.Event{
		Action: r.op.action,
		Ino:    r.subject,
		Path:   r.fs.paths.path(r.at),
		UID:    r.caller,
		Result: resultOf(errno),
	}
	if r.at.name == "" {
		_, event.Ino = r.fs.split(r.at.folder)
	}
	if r.to.name != "" {
		event.NewPath = r.fs.paths.path(r.to)
	}
	r.drive.note(event)
}

// recordClosed notes what was written through a file that has been closed.
func (fs *filesystem) recordClosed(f *openFile) {
	written := f.written.Load()
	if written == 0 && !f.truncated {
		return
	}
	f.node.drive.note(blobstore.Event{
		Action: blobstore.ActionWrite,
		Ino:    f.node.ino,
		Path:   fs.paths.path(place{folder: f.node.id}),
		Bytes:  written,
		UID:    f.caller,
		Result: blobstore.ResultOK,
	})
}

// recordSession notes that the session of a drive has ended as err says, or, with nil, that it is back.
func (d *drive) recordSession(err error) {
	d.note(blobstore.Event{Action: blobstore.ActionSession, UID: uint32(os.Geteuid()), Result: resultOf(errnoOf(err))})
}

// recordSession does so for every drive that is open.
func (fs *filesystem) recordSession(err error) {
	fs.root.recordSession(err)
	if fs.many == nil {
		return
	}
	fs.many.mu.RLock()
	defer fs.many.mu.RUnlock()
	for _, d := range fs.many.opened {
		d.recordSession(err)
	}
}

func (d *drive) note(event blobstore.Event) {
	event.Time, event.Count = time.Now(), 1
	d.Record(event)
}

func resultOf(errno unix.Errno) string {
	if errno == 0 {
		return blobstore.ResultOK
	}
	return unix.ErrnoName(errno)
}

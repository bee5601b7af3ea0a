package fusefs

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// An operation is what a request asks for.
type operation struct {
	name     string           // in the log, and of what is counted
	action   blobstore.Action // in the audit log
	recorded bool             // when it succeeds; denials always are
	number   int              // its place among operations
}

// operations are all there are.
var operations []*operation

func newOperation(name string, action blobstore.Action, recorded bool) *operation {
	op := &operation{name, action, recorded, len(operations)}
	operations = append(operations, op)
	return op
}

// What was written is recorded when the file is closed, once (recordClosed).
var (
	opLookup      = newOperation("lookup", blobstore.ActionLook, false)
	opGetattr     = newOperation("getattr", blobstore.ActionLook, false)
	opReadlink    = newOperation("readlink", blobstore.ActionLook, false)
	opGetxattr    = newOperation("getxattr", blobstore.ActionLook, false)
	opSetFact     = newOperation("setfact", blobstore.ActionLook, false) // of what can't be changed, which is no change
	opListxattr   = newOperation("listxattr", blobstore.ActionLook, false)
	opStatfs      = newOperation("statfs", blobstore.ActionLook, false)
	opOpendir     = newOperation("opendir", blobstore.ActionLook, false)
	opReaddir     = newOperation("readdir", blobstore.ActionLook, false)
	opReaddirplus = newOperation("readdirplus", blobstore.ActionLook, false)
	opReleasedir  = newOperation("releasedir", blobstore.ActionLook, false)
	opRead        = newOperation("read", blobstore.ActionLook, false)
	opLock        = newOperation("lock", blobstore.ActionLook, false)
	opLockWait    = newOperation(LockWait, blobstore.ActionLook, false)
	opLseek       = newOperation("lseek", blobstore.ActionLook, false)

	opWrite         = newOperation("write", blobstore.ActionWrite, false)
	opCopyFileRange = newOperation("copy_file_range", blobstore.ActionWrite, false)
	opFlush         = newOperation("flush", blobstore.ActionWrite, false)
	opFsync         = newOperation("fsync", blobstore.ActionWrite, false)
	opRelease       = newOperation("release", blobstore.ActionWrite, false)
	opFsyncdir      = newOperation("fsyncdir", blobstore.ActionChange, false)

	opOpen        = newOperation("open", blobstore.ActionOpen, true)
	opCreate      = newOperation("create", blobstore.ActionCreate, true)
	opMknod       = newOperation("mknod", blobstore.ActionCreate, true)
	opMkdir       = newOperation("mkdir", blobstore.ActionCreate, true)
	opSymlink     = newOperation("symlink", blobstore.ActionCreate, true)
	opSetattr     = newOperation("setattr", blobstore.ActionChange, true)
	opSetxattr    = newOperation("setxattr", blobstore.ActionChange, true)
	opRemovexattr = newOperation("removexattr", blobstore.ActionChange, true)
	opFallocate   = newOperation("fallocate", blobstore.ActionChange, true)
	opLink        = newOperation("link", blobstore.ActionLink, true)
	opRename      = newOperation("rename", blobstore.ActionRename, true)
	opUnlink      = newOperation("unlink", blobstore.ActionRemove, true)
	opRmdir       = newOperation("rmdir", blobstore.ActionRemove, true)
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

package fusefs

import (
	"log/slog"
	"math"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"mediafs/blobstore"
)

// filesystem answers the kernel's requests out of one drive, or of many. Its exported methods are those of fuse.RawFileSystem,
// spread over the files of this package by what they are about. What it does not have, the embedded default refuses with ENOSYS, which the
// kernel remembers: access(2) it answers itself from modes and owners, O_TMPFILE is EOPNOTSUPP,
// ioctl ENOTTY.
type filesystem struct {
	fuse.RawFileSystem

	root        *drive  // where node 1 is: the one drive, or the folder of many
	many        *drives // nil in a mount of one drive
	timeout     time.Duration
	readOnly    bool
	passthrough bool // is asked for
	log         *slog.Logger
	suspended   atomic.Pointer[error] // why nothing is answered; nil: it is
	frozen      atomic.Bool           // being unmounted while in use: what is open may be read, no more
	handles     handles
	paths       *paths
	locks       bool // the kernel asks for them
	waiting     lockWaits
	watchers    sync.WaitGroup // goroutines of interruptible, and of those who wait for a lock
	server      *fuse.Server   // set by Init

	counts counts

	notesMu sync.Mutex
	notes   []string // guarded by notesMu
}

// newFilesystem makes the file system of one drive, whose owner is shown as whoever mounts.
func newFilesystem(one blobstore.Drive, o Options) *filesystem {
	o.Locks = blobstore.LockerOf(one) != nil
	return newFilesystemAt(&drive{Drive: one, ids: newIDs(one, uint32(os.Geteuid()), uint32(os.Getegid()))}, math.MaxUint64, o)
}

// newFilesystemAt makes a file system with a root, in whose node ids the bits of inoMask are the ino.
func newFilesystemAt(root *drive, inoMask uint64, o Options) *filesystem {
	fs := &filesystem{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		root:          root,
		timeout:       o.Timeout,
		readOnly:      o.ReadOnly,
		passthrough:   o.Passthrough,
		locks:         o.Locks,
		log:           o.Logger,
		paths:         newPaths(inoMask),
		counts:        newCounts(),
	}
	fs.handles = newHandles(fs.recordClosed)
	return fs
}

// String is the name of the file system in go-fuse's messages.
func (fs *filesystem) String() string { return typeName }

// Init is called once the kernel has said what it can do.
func (fs *filesystem) Init(server *fuse.Server) {
	fs.server = server
	if fs.passthrough {
		fs.handles.passthrough.init(server, fs.note)
	}
}

// stop closes what is still open, other than drives. The kernel sends nothing any more.
func (fs *filesystem) stop() {
	fs.watchers.Wait()
	for _, err := range fs.handles.closeAll() {
		fs.log.Error("close at unmount", "error", err)
	}
	if fs.many != nil {
		fs.many.stop()
	}
}

// dropContent has the kernel write what it alone has of a node's content, and drop all that it has of it.
func (fs *filesystem) dropContent(node uint64) {
	// ENOENT: the kernel knows the node no more, and so has nothing of it.
	if status := fs.server.InodeNotify(node, 0, 0); status != fuse.OK && status != fuse.ENOENT {
		fs.log.Warn("the kernel may still have content of an open file", "node", node, "error", status)
	}
}

// StatFs answers statfs(2). The figures are the drive's; they come from its memory.
func (fs *filesystem) StatFs(cancel <-chan struct{}, header *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	r, err := fs.beginWaiting(opStatfs, header, cancel)
	if err != nil {
		return r.end(err)
	}
	usage, err := r.drive.Usage(r.ctx)
	if err != nil {
		return r.end(err)
	}
	out.Bsize = blobstore.BlockSize
	out.Frsize = blobstore.BlockSize
	out.Blocks = uint64(max(0, usage.TotalBytes)) / blobstore.BlockSize
	out.Bfree = uint64(max(0, usage.FreeBytes)) / blobstore.BlockSize
	out.Bavail = out.Bfree
	out.Files = uint64(max(0, usage.TotalFiles))
	out.Ffree = uint64(max(0, usage.FreeFiles))
	out.NameLen = blobstore.MaxNameLen
	return r.end(nil)
}

// note keeps a sentence for Mount.Notes, once, and logs it.
func (fs *filesystem) note(sentence string) {
	fs.notesMu.Lock()
	defer fs.notesMu.Unlock()
	if slices.Contains(fs.notes, sentence) {
		return
	}
	fs.notes = append(fs.notes, sentence)
	fs.log.Warn(sentence)
}

func (fs *filesystem) noted() []string {
	fs.notesMu.Lock()
	defer fs.notesMu.Unlock()
	return slices.Clone(fs.notes)
}

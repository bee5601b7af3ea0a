package fusefs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// A request is one question of the kernel being answered. Its context ends at the deadline.
type request struct {
	fs     *filesystem
	op     *operation
	caller uint32 // user id on this machine
	node   uint64
	begun  time.Time
	drive  *drive // which has the node; held until the end; nil if it could not be found
	ino    blobstore.Ino
	ctx    context.Context
	stop   context.CancelFunc

	// What is recorded of it (audit.go).
	at      place         // what it is about; unless it is said otherwise the node
	to      place         // the new name, of a rename or link
	subject blobstore.Ino // what has the name at; 0: not known
}

// begin starts a request that runs to its end or its deadline even if the caller is killed: one that changes something, which
// must not be torn. The error says why it can't be answered: end does so.
func (fs *filesystem) begin(op *operation, header *fuse.InHeader) (request, error) {
	r := fs.newRequest(op, header)
	err := r.locate()
	return r, err
}

// beginWaiting starts a request that is also given up when the caller is killed: one that only looks.
func (fs *filesystem) beginWaiting(op *operation, header *fuse.InHeader, cancel <-chan struct{}) (request, error) {
	r := fs.newRequest(op, header)
	if cancel != nil {
		r.ctx = &interruptible{Context: r.ctx, stop: r.stop, fs: fs, interrupt: cancel, caller: header.Pid}
	}
	err := r.locate()
	return r, err
}

// beginChange starts a request that changes something, unless nothing may be changed here.
func (fs *filesystem) beginChange(op *operation, header *fuse.InHeader) (request, error) {
	r, err := fs.begin(op, header)
	if err == nil && (fs.readOnly || fs.frozen.Load()) {
		err = blobstore.ErrReadOnly
	}
	return r, err
}

// beginUnchecked starts a request that is answered whether or not the session lasts: what is open is closed, and what the
// kernel holds was written while that was allowed.
func (fs *filesystem) beginUnchecked(op *operation, header *fuse.InHeader) (request, error) {
	r := fs.newRequest(op, header)
	var err error
	r.drive, r.ino, err = fs.find(r.ctx, r.node)
	return r, err
}

func (fs *filesystem) newRequest(op *operation, header *fuse.InHeader) request {
	fs.counts.begun.Add(1)
	begun := time.Now()
	ctx, stop := context.WithDeadline(context.Background(), begun.Add(fs.timeout))
	return request{
		fs: fs, op: op, caller: header.Uid, node: header.NodeId, begun: begun, at: place{folder: header.NodeId}, ctx: ctx, stop: stop,
	}
}

// locate finds the drive and the node that a request is about, unless the drive, or the mount, is suspended.
func (r *request) locate() (err error) {
	if r.drive, r.ino, err = r.fs.find(r.ctx, r.node); err != nil {
		return err
	}
	return r.isSuspended()
}

// isSuspended gives the error that the drive, or the mount, is suspended with.
func (r *request) isSuspended() error {
	for _, ended := range [...]*error{r.fs.suspended.Load(), r.drive.suspended.Load()} {
		if ended != nil {
			return *ended
		}
	}
	return nil
}

// end answers the request: with success, or with the errno of err.
func (r *request) end(err error) fuse.Status {
	r.stop()
	if r.drive != nil {
		defer r.drive.release()
	}
	errno := errnoOf(err)
	r.record(errno)
	r.fs.counts.answered(r.op, time.Since(r.begun), errno)
	if errno == 0 {
		return fuse.OK
	}
	if errno == unix.EIO || errno == unix.ETIMEDOUT || errno == unix.EOVERFLOW {
		number, ino := r.fs.split(r.node)
		if r.fs.many == nil {
			number = r.fs.root.ID()
		}
		r.fs.log.LogAttrs(context.Background(), slog.LevelError, "request failed", slog.String("operation", r.op.name),
			slog.Uint64("drive", uint64(number)), slog.Uint64("ino", uint64(ino)),
			slog.String("errno", unix.ErrnoName(errno)), slog.String("error", err.Error()))
	}
	return fuse.Status(errno)
}

// endNode is end for a request in which ErrNotExist can only mean a node that the kernel knows by number, not a name. If that node
// is not there, the name it was found by is out of date: ESTALE has the kernel look the name up again, where ENOENT would tell the
// program that there is no such file though another mount has just put a new one in its place.
func (r *request) endNode(err error) fuse.Status {
	if errors.Is(err, blobstore.ErrNotExist) {
		err = fmt.Errorf("%w: %w", blobstore.ErrStale, err)
	}
	return r.end(err)
}

// interruptible is a context that ends at its deadline, or when the caller that waits for the answer is being killed.
//
// The kernel says when a signal reaches the caller (FUSE_INTERRUPT), but not which. Most signals end nothing: timers, children that
// exit, the Go runtime's own preemption. A program does not expect stat(2) to fail with EINTR for those, and on a local disk it
// never does. So only a signal that kills counts, and /proc tells whether there is one. The kernel speaks up just for the first
// signal; after it, we look from time to time.
//
// The goroutine that watches is started when somebody waits for Done, which a drive that answers from memory never does.
type interruptible struct {
	context.Context
	stop      context.CancelFunc
	fs        *filesystem
	interrupt <-chan struct{} // closed when a signal reaches the caller
	caller    uint32          // thread id
	watching  sync.Once
}

// lookInterval is how often we look whether a caller that had a signal is being killed by another.
const lookInterval = 100 * time.Millisecond

func (c *interruptible) Done() <-chan struct{} {
	c.watching.Do(func() { c.fs.watchers.Go(c.watch) })
	return c.Context.Done()
}

func (c *interruptible) Err() error {
	select {
	case <-c.interrupt:
		if isDying(c.caller) {
			c.stop()
		}
	default:
	}
	return c.Context.Err()
}

func (c *interruptible) watch() {
	select {
	case <-c.interrupt:
	case <-c.Context.Done():
		return
	}
	look := time.NewTicker(lookInterval)
	defer look.Stop()
	for !isDying(c.caller) {
		select {
		case <-look.C:
		case <-c.Context.Done():
			return
		}
	}
	c.stop()
}

// isDying says whether a thread has a signal pending that kills it. Whatever signal ends a process, the kernel marks each of its
// threads with SIGKILL (complete_signal), which proc_pid_status(5) shows as bit 8 of SigPnd. A thread that is gone, or that can't
// be seen from here, counts as dying.
func isDying(thread uint32) bool {
	const killed = 1 << (unix.SIGKILL - 1)
	status, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(thread), 10) + "/status")
	if err != nil {
		return true
	}
	_, after, _ := bytes.Cut(status, []byte("\nSigPnd:\t"))
	mask, _, _ := bytes.Cut(after, []byte("\n"))
	pending, err := strconv.ParseUint(string(mask), 16, 64)
	return err != nil || pending&killed != 0
}

package dirstore

import (
	"container/list"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A descriptor is an open file that several may use at once. The last to release it closes it.
type descriptor struct {
	fd   int
	refs atomic.Int32
}

// newDescriptor takes over fd; the caller holds the first reference.
func newDescriptor(fd int) *descriptor {
	d := &descriptor{fd: fd}
	d.refs.Store(1)
	return d
}

// acquire adds a reference, unless the last one is gone.
func (d *descriptor) acquire() bool {
	for {
		n := d.refs.Load()
		if n == 0 {
			return false
		}
		if d.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// release gives a reference back.
func (d *descriptor) release() { _ = d.close() }

// close gives a reference back and returns the error of close(2) if it was the last.
func (d *descriptor) close() error {
	if d.refs.Add(-1) > 0 {
		return nil
	}
	return unix.Close(d.fd)
}

// path leads to the open file itself for system calls that take only a path. Following it is no resolution of a path: it
// jumps to the inode, be it a symbolic link, a file or a node without names (proc(5), "magic link").
func (d *descriptor) path() string { return "/proc/self/fd/" + strconv.Itoa(d.fd) }

// How openPath goes from a folder to an entry, openat2(2).
const (
	mayMount = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS
	beneath  = mayMount | unix.RESOLVE_NO_XDEV
)

// openPath opens an entry of a folder as a place, neither for reading nor for writing: no device wakes up and no FIFO blocks.
// A symbolic link is opened itself, or refused with O_DIRECTORY.
func openPath(folder int, name string, flags int, resolve uint64) (fd int, err error) {
	how := unix.OpenHow{Flags: uint64(unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC | flags), Resolve: resolve}
	err = retry(func() error { fd, err = unix.Openat2(folder, name, &how); return err })
	return fd, err
}

// openat is openat(2). Content is opened with it rather than with openat2, which leaves out O_LARGEFILE.
func openat(folder int, name string, flags int, mode uint32) (fd int, err error) {
	err = retry(func() error {
		fd, err = unix.Openat(folder, name, flags|unix.O_CLOEXEC|unix.O_NOCTTY, mode)
		return err
	})
	return fd, err
}

// statx asks for everything that a drive wants to know of an entry of a folder, or with an empty name of the descriptor
// itself. It follows no symbolic link.
func statx(folder int, name string, st *unix.Statx_t) error {
	const flags = unix.AT_EMPTY_PATH | unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT
	const mask = unix.STATX_BASIC_STATS | unix.STATX_BTIME | unix.STATX_MNT_ID
	return retry(func() error { return unix.Statx(folder, name, flags, mask, st) })
}

// retry calls a system call again that a signal interrupted; the Go runtime sends itself signals.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// folders keeps the descriptors of the folders used last, of all drives of a store. A folder it has lost is found again
// from its parent.
type folders struct {
	limit int

	mu     sync.Mutex
	recent list.List // of *kept, the last used first; guarded by mu, as are its members and node.kept
}

// kept is a folder whose descriptor is kept.
type kept struct {
	node    *node
	d       *descriptor
	checked time.Time // when the folder was last known to be beneath the drive's root
}

// newFolders takes a quarter of the descriptors that the process may have: the rest is for open files.
func newFolders() *folders {
	const most = 4096
	f := &folders{limit: most}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil {
		f.limit = int(min(limit.Cur/4, most))
	}
	return f
}

// get returns the descriptor of a folder with a reference for the caller, or nil.
func (f *folders) get(n *node) (*descriptor, time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n.kept == nil {
		return nil, time.Time{}
	}
	f.recent.MoveToFront(n.kept)
	k := n.kept.Value.(*kept)
	k.d.acquire() // can't fail: the list has a reference
	return k.d, k.checked
}

// put keeps a folder's descriptor, with a reference of its own, and lets go of the one that was not used for longest.
func (f *folders) put(n *node, d *descriptor, checked time.Time) {
	d.acquire() // can't fail: the caller has a reference
	spare := f.swap(n, &kept{n, d, checked})
	if spare != nil {
		spare.release()
	}
}

// swap returns the descriptor that must go for k to come.
func (f *folders) swap(n *node, k *kept) *descriptor {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case n.dropped:
		return k.d
	case n.kept != nil:
		old := n.kept.Value.(*kept)
		n.kept.Value = k
		return old.d
	}
	n.kept = f.recent.PushFront(k)
	if f.recent.Len() <= f.limit {
		return nil
	}
	return f.take(f.recent.Back())
}

// take removes an element of the list. The caller holds mu and gets the list's reference.
func (f *folders) take(e *list.Element) *descriptor {
	k := f.recent.Remove(e).(*kept)
	k.node.kept = nil
	return k.d
}

// remove gives the caller the list's reference to the descriptor of a folder, if there is one. After drop, nothing is
// kept for the node any more.
func (f *folders) remove(n *node, drop bool) *descriptor {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !n.folder {
		return nil
	}
	n.dropped = n.dropped || drop
	if n.kept == nil {
		return nil
	}
	return f.take(n.kept)
}

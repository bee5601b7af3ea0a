package fusefs

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"mediafs/blobstore"
)

// handles are the files and folders that the kernel has open. A handle is a number that is never used again, so a made-up or
// outdated one leads to nothing.
type handles struct {
	passthrough passthrough
	closed      func(*openFile) // is told of each file that was closed

	mu    sync.RWMutex
	last  uint64               // guarded by mu, as the rest
	files map[uint64]*openFile // by handle
	dirs  map[uint64]*openDir  // by handle
	nodes map[uint64]*openNode // of files, by node id: two drives have the same inos
}

// openFile is one open regular file.
type openFile struct {
	file      blobstore.File
	node      *openNode
	readable  bool
	writable  bool
	changes   bool         // something may have to be stored when it is closed
	truncated bool         // when it was opened
	caller    uint32       // who opened it
	written   atomic.Int64 // bytes

	closing sync.Mutex // held by Unmount to sync the file and by Release to close it
	closed  bool       // guarded by closing
}

// sync makes durable what was written, unless the file has been closed since it was found.
func (f *openFile) sync(ctx context.Context) error {
	f.closing.Lock()
	defer f.closing.Unlock()
	if f.closed {
		return nil
	}
	return f.file.Sync(ctx)
}

func (f *openFile) close() error {
	f.closing.Lock()
	defer f.closing.Unlock()
	f.closed = true
	return f.file.Close()
}

// openDir is one open folder.
type openDir struct {
	mu    sync.Mutex // held while dir is used: a Dir is not for two goroutines at once
	dir   blobstore.Dir
	drive *drive // held while it is open
	id    uint64 // of the node
}

// openNode is what all open files of one node have in common.
type openNode struct {
	id      uint64 // what the kernel calls it
	drive   *drive // held by each of its opens
	ino     blobstore.Ino
	opens   int   // guarded by handles.mu
	mapped  bool  // it may be, to be written: it was opened to read and to write; guarded by handles.mu
	backing int32 // what the kernel calls the file it reads and writes itself; 0: none; fixed while the node is open
	made    bool  // through this mount, by the first of its opens

	labelled atomic.Bool // somebody gave it a security.capability

	locks nodeLocks

	privileges sync.Mutex // held from asking for the mode until plain is set
	plain      time.Time  // when it was last seen without bits to clear (privileges.go); guarded by privileges
}

func newHandles(closed func(*openFile)) handles {
	return handles{
		closed: closed,
		files:  make(map[uint64]*openFile),
		dirs:   make(map[uint64]*openDir),
		nodes:  make(map[uint64]*openNode),
	}
}

// addFile gives an open file of the node id its handle, and sets f.node. made says that the node is new.
func (h *handles) addFile(d *drive, id uint64, attr *blobstore.Attr, f *openFile, made bool) uint64 {
	d.hold()
	h.mu.Lock()
	defer h.mu.Unlock()
	node := h.nodes[id]
	if node == nil {
		node = &openNode{id: id, drive: d, ino: attr.Ino, made: made, backing: h.passthrough.register(f.file, attr)}
		if made && !hasPrivileges(attr.Mode) {
			node.plain = time.Now()
		}
		h.nodes[id] = node
	}
	node.opens++
	node.mapped = node.mapped || f.readable && f.writable
	h.last++
	f.node = node
	h.files[h.last] = f
	return h.last
}

// removeFile takes a handle back and closes its file.
func (h *handles) removeFile(handle, id uint64) error {
	h.mu.Lock()
	f := h.files[handle]
	if f == nil || f.node.id != id {
		h.mu.Unlock()
		return errBadHandle
	}
	delete(h.files, handle)
	f.node.opens--
	if f.node.opens == 0 {
		delete(h.nodes, id)
		h.passthrough.unregister(f.node.backing)
	}
	h.mu.Unlock()
	return h.close(f)
}

// close closes a file that has no handle any more.
func (h *handles) close(f *openFile) error {
	defer f.node.drive.release()
	err := f.close()
	h.closed(f)
	return err
}

// file finds an open file of a node.
func (h *handles) file(handle, id uint64) (*openFile, error) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	f := h.files[handle]
	if f == nil || f.node.id != id {
		return nil, errBadHandle
	}
	return f, nil
}

// node finds what is known of a node that is open; nil if it is not.
func (h *handles) node(id uint64) *openNode {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.nodes[id]
}

// passesWrites says whether a node is open for the kernel to write to the file behind it by itself.
func (h *handles) passesWrites(id uint64) bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	node := h.nodes[id]
	return node != nil && node.backing != 0
}

// mayBeMapped says whether the kernel may have changes of a node that it has not told of, in pages that programs have mapped.
func (h *handles) mayBeMapped(id uint64) bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	node := h.nodes[id]
	return node != nil && node.mapped && node.backing == 0
}

func (h *handles) addDir(d *drive, id uint64, dir blobstore.Dir) uint64 {
	d.hold()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	h.dirs[h.last] = &openDir{dir: dir, drive: d, id: id}
	return h.last
}

func (h *handles) removeDir(handle, id uint64) error {
	h.mu.Lock()
	d := h.dirs[handle]
	if d == nil || d.id != id {
		h.mu.Unlock()
		return errBadHandle
	}
	delete(h.dirs, handle)
	h.mu.Unlock()
	defer d.drive.release()
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dir.Close()
}

func (h *handles) dir(handle, id uint64) (*openDir, error) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	d := h.dirs[handle]
	if d == nil || d.id != id {
		return nil, errBadHandle
	}
	return d, nil
}

func (h *handles) open() int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return len(h.files) + len(h.dirs)
}

// sync makes durable what was written to open files. A drive that can put aside what it can't store is not waited for for long.
func (h *handles) sync(ctx context.Context) error {
	h.mu.RLock()
	var writable []*openFile
	for _, f := range h.files {
		if f.writable {
			writable = append(writable, f)
		}
	}
	h.mu.RUnlock()
	var errs []error
	stalled := make(map[*drive]bool)
	for _, f := range writable {
		d := f.node.drive
		if stalled[d] {
			continue
		}
		storing, stop := ctx, func() {}
		if p, ok := d.Drive.(blobstore.Preserver); ok {
			storing, stop = blobstore.UntilStalled(ctx, p)
		}
		err := f.sync(storing)
		stalled[d] = storing.Err() != nil
		stop()
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// closeAll closes what is left open when the kernel has gone, and returns what failed.
func (h *handles) closeAll() []error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	for _, f := range h.files {
		if err := h.close(f); err != nil {
			errs = append(errs, err)
		}
	}
	for _, d := range h.dirs {
		if err := d.dir.Close(); err != nil {
			errs = append(errs, err)
		}
		d.drive.release()
	}
	// The kernel has dropped its backing files with the connection.
	clear(h.files)
	clear(h.dirs)
	clear(h.nodes)
	return errs
}

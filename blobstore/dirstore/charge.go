package dirstore

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// held is what a file counts for: its blocks, but not those past its end, which file systems take in advance and give back. What is no regular file counts nothing.
func held(st *unix.Statx_t) int64 {
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return 0
	}
	return min(int64(st.Blocks)*512, roundUp(int64(st.Size), unitOf(st)))
}

func unitOf(st *unix.Statx_t) int64 { return max(int64(st.Blksize), 512) }

func roundUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }

// allowance is what a drive knows of its quota.
type allowance struct {
	looked  atomic.Int64 // when limited was last looked up
	limited atomic.Bool
	warned  atomic.Bool

	changes sync.RWMutex    // shared by who changes what the drive holds, from charging it until it is known what was added
	earlier atomic.Int64    // bytes by which what was charged differs from what was added
	moved   atomic.Uint64   // counts renames
	orphans map[*node]bool  // open here, and removed here: what they hold goes when they are closed; guarded by Drive.mu
	life    context.Context // ends with the drive
	stop    context.CancelFunc
	tasks   sync.WaitGroup
	counts  sync.Once     // begins to count anew
	refused chan struct{} // says that something did not fit
	pause   atomic.Int64  // recountPause, or what a test has set
}

func (a *allowance) begin() {
	a.orphans = make(map[*node]bool)
	a.refused = make(chan struct{}, 1)
	a.pause.Store(int64(recountPause))
	a.life, a.stop = context.WithCancel(context.Background())
}

// end ends the background.
func (a *allowance) end() {
	a.stop()
	a.tasks.Wait()
}

// isLimited says whether the drive has a limit, as far as was known a second ago.
func (d *Drive) isLimited(ctx context.Context) bool {
	now := time.Now().UnixNano()
	last := d.quota.looked.Load()
	if now-last < int64(limitsLast) || !d.quota.looked.CompareAndSwap(last, now) {
		return d.quota.limited.Load()
	}
	return d.lookForLimits(ctx)
}

func (d *Drive) lookForLimits(ctx context.Context) bool {
	_, is, err := d.store.quotas.of(ctx, d.name)
	if err != nil {
		d.unenforced(err)
		return d.quota.limited.Load()
	}
	d.quota.limited.Store(is)
	if is && !d.closed.Load() {
		d.quota.counts.Do(func() { d.quota.tasks.Go(d.recountOften) })
	}
	return is
}

// unenforced says once that the drive is not held to a quota, and why.
func (d *Drive) unenforced(err error) {
	if d.quota.life.Err() == nil && !d.quota.warned.Swap(true) {
		d.store.log.Warn("a quota of the drive, if it has one, is not kept: the file of quotas can't be used", "drive", d.name, "error", err)
	}
}

// charge charges the drive. ErrQuota if that does not fit; that the file of quotas can't be used keeps nobody from writing.
func (d *Drive) charge(ctx context.Context, bytes, files int64) error {
	earlier := d.quota.earlier.Swap(0)
	err := d.store.quotas.charge(ctx, d.name, bytes, files, earlier)
	if err == nil {
		return nil
	}
	d.quota.earlier.Add(earlier)
	if errors.Is(err, blobstore.ErrQuota) {
		select {
		case d.quota.refused <- struct{}{}:
		default:
		}
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	d.unenforced(err)
	return nil
}

// settleQuota charges what earlier changes differ by.
func (d *Drive) settleQuota(ctx context.Context) {
	if d.quota.earlier.Load() != 0 {
		if err := d.charge(context.WithoutCancel(ctx), 0, 0); err != nil {
			d.unenforced(err)
		}
	}
}

// usageWithin is what is free of a file system within the drive's quota.
func (d *Drive) usageWithin(ctx context.Context, u blobstore.Usage) (blobstore.Usage, error) {
	if !d.lookForLimits(ctx) {
		return u, nil
	}
	d.settleQuota(ctx)
	h, is, err := d.store.quotas.of(ctx, d.name)
	if err != nil || !is {
		return u, err
	}
	if h.maxBytes > 0 {
		u.TotalBytes, u.FreeBytes = h.maxBytes, min(u.FreeBytes, max(h.maxBytes-h.bytes, 0))
	}
	if h.maxFiles > 0 {
		u.TotalFiles, u.FreeFiles = h.maxFiles, min(u.FreeFiles, max(h.maxFiles-h.files, 0))
	}
	return u, nil
}

// A countedFile is an open file of a drive with a limit. The kernel is not handed the file behind it: what it writes there would not be charged.
type countedFile struct{ blobstore.File }

// shown is what the user of a drive gets of an open file.
func (d *Drive) shown(ctx context.Context, f *file) blobstore.File {
	if d.isLimited(ctx) {
		return countedFile{f}
	}
	return f
}

// ownFile is the other way.
func ownFile(f blobstore.File) (*file, bool) {
	if c, ok := f.(countedFile); ok {
		f = c.File
	}
	own, ok := f.(*file)
	return own, ok
}

// growing does what may add the bytes [off, off+n) to a file, or as many of them as there is room for, which do is told.
func (f *file) growing(ctx context.Context, fd *descriptor, off, n int64, do func(most int64) error) error {
	d := f.drive
	if n == 0 || !d.isLimited(ctx) {
		return do(n)
	}
	changing := d.changing(f.node)
	changing.Lock()
	defer changing.Unlock()
	d.quota.changes.RLock()
	defer d.quota.changes.RUnlock()
	var before unix.Statx_t
	if err := statx(fd.fd, "", &before); err != nil {
		return err
	}
	if before.Nlink == 0 && !d.isOrphan(f.node) {
		return do(n) // it is not counted any more
	}
	charged, most, err := d.chargeRange(ctx, fd.fd, &before, off, n)
	if err != nil {
		return err
	}
	err = do(most)
	d.changedFrom(&before, fd.fd, charged)
	return err
}

// chargeRange charges what writing to [off, off+n) may add, if need be of the beginning alone, and gives how much it is and how long that is.
func (d *Drive) chargeRange(ctx context.Context, fd int, st *unix.Statx_t, off, n int64) (charged, most int64, err error) {
	unit := unitOf(st)
	charged = roundUp(off+n, unit) - off/unit*unit
	err = d.charge(ctx, charged, 0)
	if !errors.Is(err, blobstore.ErrQuota) {
		return charged, n, err
	}
	// It may be there in part already; or fit in part.
	h, is, err := d.store.quotas.of(ctx, d.name)
	if err != nil || !is {
		return 0, n, err
	}
	charged, most = 0, 0
	left := max(h.maxBytes-h.bytes-d.quota.earlier.Load(), 0)
	for at := off; at < off+n; at = (at/unit + 1) * unit {
		if hasData, err := isThere(fd, at/unit*unit, unit, int64(st.Size)); err != nil {
			return 0, 0, err
		} else if !hasData {
			if charged+unit > left {
				break
			}
			charged += unit
		}
		most = min((at/unit+1)*unit, off+n) - off
	}
	if most == 0 {
		return 0, 0, blobstore.ErrQuota
	}
	return charged, most, d.charge(ctx, charged, 0)
}

// isThere says whether a block of a file is no hole.
func isThere(fd int, at, unit, size int64) (bool, error) {
	if at >= size {
		return false, nil
	}
	data, err := unix.Seek(fd, at, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return false, nil
	}
	return err == nil && data < at+unit, err
}

// changedFrom notes by how much what a change of a file that counts has added, whose attributes were st before, differs from what was charged for it.
func (d *Drive) changedFrom(st *unix.Statx_t, fd int, charged int64) {
	var now unix.Statx_t
	if d.quota.limited.Load() && statx(fd, "", &now) == nil {
		d.quota.earlier.Add(held(&now) - held(st) - charged)
	}
}

// allocating does what fallocate(2) does. Past the end of a file nothing can be reserved: what is there is not counted.
func (f *file) allocating(ctx context.Context, fd *descriptor, mode blobstore.AllocateMode, off, n int64, allocate func() error) error {
	if !f.drive.isLimited(ctx) {
		return allocate()
	}
	var st unix.Statx_t
	if err := statx(fd.fd, "", &st); err != nil {
		return err
	}
	switch {
	case mode == blobstore.AllocatePunchHole:
		defer f.drive.changedFrom(&st, fd.fd, 0)
		return allocate()
	case (mode == blobstore.AllocateKeepSize || mode == blobstore.AllocateZeroKeep) && off+n > int64(st.Size):
		return blobstore.ErrNotSupported
	}
	return f.growing(ctx, fd, off, n, func(most int64) error {
		if most < n {
			return blobstore.ErrQuota
		}
		return allocate()
	})
}

// making makes a node, if there is room for it. One that is there already is none that is made.
func (d *Drive) making(ctx context.Context, folder *descriptor, name string, do func() (*descriptor, error)) (*descriptor, error) {
	if !d.isLimited(ctx) {
		return do()
	}
	d.quota.changes.RLock()
	defer d.quota.changes.RUnlock()
	if err := d.charge(ctx, 0, 1); err != nil {
		var st unix.Statx_t
		if errors.Is(err, blobstore.ErrQuota) && statx(folder.fd, name, &st) == nil {
			return nil, unix.EEXIST
		}
		return nil, err
	}
	fd, err := do()
	if err != nil {
		if refund := d.charge(context.WithoutCancel(ctx), 0, -1); refund != nil {
			d.unenforced(refund)
		}
	}
	return fd, err
}

// nameless takes off what a node held that has lost a name, and was as st says before, if that was its last. If it is open here, it goes when it is closed.
func (d *Drive) nameless(ctx context.Context, st *unix.Statx_t) {
	folder := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if !d.isLimited(ctx) || st.Nlink > 1 && !folder {
		return
	}
	d.mu.Lock()
	n := d.nodes[d.ino(st.Ino)]
	open := n != nil && n.id == identityOf(st) && n.files != nil
	if open {
		d.quota.orphans[n] = true
	}
	d.mu.Unlock()
	if open {
		return
	}
	d.quota.changes.RLock()
	defer d.quota.changes.RUnlock()
	if err := d.charge(context.WithoutCancel(ctx), -held(st), -1); err != nil {
		d.unenforced(err)
	}
}

// moving renames: who counts the drive meanwhile may find what moves twice, or not at all, and is to know.
func (d *Drive) moving(ctx context.Context, rename func() error) error {
	if !d.isLimited(ctx) {
		return rename()
	}
	d.quota.changes.RLock()
	defer d.quota.changes.RUnlock()
	d.quota.moved.Add(1)
	return rename()
}

func (d *Drive) isOrphan(n *node) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.quota.orphans[n]
}

// buried takes off what an orphan held that is being closed.
func (d *Drive) buried(fd *descriptor) {
	d.quota.changes.RLock()
	defer d.quota.changes.RUnlock()
	var st unix.Statx_t
	err := statx(fd.fd, "", &st)
	if err == nil {
		err = d.charge(context.Background(), -held(&st), -1)
	}
	if err != nil {
		d.unenforced(err)
	}
}

// recountOften counts anew what the drive holds, from time to time, and soon after something was refused.
func (d *Drive) recountOften() {
	for {
		began := time.Now()
		if err := d.recount(d.quota.life); err != nil && d.quota.life.Err() == nil {
			d.store.log.Warn("what the drive holds could not be counted; trying again later", "drive", d.name, "error", err)
		}
		select {
		case <-d.quota.life.Done():
			return
		case <-time.After(recountEvery):
		case <-d.quota.refused:
			select {
			case <-d.quota.life.Done():
				return
			case <-time.After(time.Until(began.Add(time.Duration(d.quota.pause.Load())))):
			}
		}
	}
}

// recount counts anew, unless the drive changes all the time. A difference has to be found twice, a while apart: another program may have moved things
// meanwhile, and another mount may have charged what it has not written yet.
func (d *Drive) recount(ctx context.Context) error {
	var last [2]int64
	found := false
	for range recountTries {
		d.quota.changes.Lock()
		d.settleQuota(ctx)
		before, is, err := d.store.quotas.of(ctx, d.name)
		moved := d.quota.moved.Load()
		d.quota.changes.Unlock()
		if err != nil || !is {
			return err
		}
		bytes, files, err := d.store.count(ctx, d.name)
		if err != nil {
			return err
		}
		d.mu.Lock()
		open := len(d.quota.orphans) > 0 // they are counted, and not found
		d.mu.Unlock()
		if open || bytes == before.bytes && files == before.files {
			return nil
		}
		if now := [2]int64{bytes - before.bytes, files - before.files}; !found || now != last {
			last, found = now, true
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(recountApart):
			}
			continue
		}
		done, err := d.recounted(ctx, before.change, moved, bytes, files)
		if done || err != nil {
			return err
		}
	}
	return nil
}

// recounted takes what was counted for what the drive holds, if nothing has changed since.
func (d *Drive) recounted(ctx context.Context, changes int64, moved uint64, bytes, files int64) (bool, error) {
	d.quota.changes.Lock()
	defer d.quota.changes.Unlock()
	if d.quota.earlier.Load() != 0 || d.quota.moved.Load() != moved {
		return false, nil
	}
	db, err := d.store.quotas.open(ctx, false)
	if err != nil || db == nil {
		return false, err
	}
	result, err := db.ExecContext(ctx, "update quotas set bytes = ?, files = ?, changes = changes + 1 where drive = ? and changes = ?", bytes, files, d.name, changes)
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

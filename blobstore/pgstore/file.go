package pgstore

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"mediafs/blobstore"
)

// File is an open file. What it holds is its blob's, which all files open on the node share.
type File struct {
	blob    *blob
	quiet   bool          // reading leaves no trace
	changes atomic.Uint64 // made through this file: counted when they are done
	flushed atomic.Uint64 // how many of them are stored
	closed  atomic.Bool

	mu     sync.Mutex // guards the rest
	losses uint64     // Drive.losses when the file was opened or last synced
	end    int64      // where the furthest read so far ended
	streak int        // reads in a row that went on about there
}

var _ blobstore.File = (*File)(nil)

// Open is one round trip; for a file of one chunk it brings the content along.
func (d *Drive) Open(ctx context.Context, ino blobstore.Ino, flags blobstore.OpenFlags) (blobstore.File, error) {
	b := d.acquire(ino)
	d.dropping.Lock()   // whoever did not see it open is done after this
	d.dropping.Unlock() //nolint:staticcheck // nothing is to be done in between
	f := &File{blob: b, losses: d.losses.Load(), quiet: d.guest || flags.Has(blobstore.OpenNoAtime)}
	var err error
	if flags.Has(blobstore.OpenTruncate) {
		err = b.truncate(ctx)
		f.changes.Add(1)
	} else {
		err = b.load(ctx)
	}
	if err != nil {
		d.release(b)
		return nil, err
	}
	return f, nil
}

// Sync stores the node's bytes and waits until they, and all that was committed before, are durable. ErrStale if a crash of the
// database server has undone the making of the file.
func (f *File) Sync(ctx context.Context) error { return f.store(ctx, true) }

// store is Sync, or for the node alone if not all that was committed before is meant.
func (f *File) store(ctx context.Context, all bool) error {
	d := f.blob.drive
	for losses := d.losses.Load(); ; {
		nameless, lost := f.blob.isNameless()
		if !nameless {
			break
		}
		if lost != nil || !all {
			return lost
		}
		err := d.makeDurable(ctx)
		before := losses
		if losses = d.losses.Load(); err != nil || losses == before {
			return err // nobody can find it after a crash
		}
	}
	changes := f.changes.Load()
	err := f.blob.store(ctx, everything)
	if err == nil && (all || !f.blob.isDurable()) {
		err = f.blob.drive.makeDurable(ctx)
	}
	if err == nil {
		err = f.survived(ctx)
	}
	if err == nil {
		raise(&f.flushed, changes)
	}
	return err
}

// survived gives an error if the file was lost with a server that went away.
func (f *File) survived(ctx context.Context) error {
	d := f.blob.drive
	f.mu.Lock()
	defer f.mu.Unlock()
	losses := d.losses.Load()
	if f.losses == losses {
		return nil
	}
	_, err := d.one(ctx, "sync", reading, selectNode, d.id, int64(f.blob.ino))
	if errors.Is(err, blobstore.ErrNotExist) {
		return translate(ctx, "sync", blobstore.ErrStale)
	}
	if err == nil {
		f.losses = losses
	}
	return err
}

// Flush is Sync for the node alone, if anything that was written or made through this file is not stored yet: it does not wait for the disk because
// of what others do. Two of them may run at once, when a process
// that was forked closes what it inherited: each waits until what was written before it is stored.
func (f *File) Flush(ctx context.Context) error {
	if f.flushed.Load() >= f.changes.Load() {
		return nil
	}
	return f.store(ctx, false)
}

// Close lets the file go; what no Flush has stored is stored in the background.
func (f *File) Close() error {
	if f.closed.Swap(true) {
		return nil
	}
	b := f.blob
	if b.isPending() {
		b.storeInBackground(everything)
	}
	b.drive.release(b)
	return nil
}

package pgstore

import (
	"context"
	"sync"
	"sync/atomic"

	"mediafs/blobstore"
)

// File is an open file. What it holds is its blob's, which all files open on the node share.
type File struct {
	blob    *blob
	changed atomic.Bool // written or made through this file since the last Flush
	closed  atomic.Bool

	mu     sync.Mutex // guards the rest
	end    int64      // where the furthest read so far ended
	streak int        // reads in a row that went on about there
}

var _ blobstore.File = (*File)(nil)

// Open is one round trip; for a file of one chunk it brings the content along.
func (d *Drive) Open(ctx context.Context, ino blobstore.Ino, flags blobstore.OpenFlags) (blobstore.File, error) {
	b := d.acquire(ino)
	d.dropping.Lock()   // whoever did not see it open is done after this
	d.dropping.Unlock() //nolint:staticcheck // nothing is to be done in between
	f := &File{blob: b}
	var err error
	if flags.Has(blobstore.OpenTruncate) {
		_, err = b.setAttr(ctx, blobstore.AttrChange{Set: blobstore.SetSize})
		f.changed.Store(true)
	} else {
		err = b.load(ctx)
	}
	if err != nil {
		d.release(b)
		return nil, err
	}
	return f, nil
}

// Sync stores the node's bytes and waits until they, and all that was committed before, are durable.
func (f *File) Sync(ctx context.Context) error {
	changed := f.changed.Swap(false)
	err := f.blob.store(ctx, everything, true)
	if err == nil {
		err = f.blob.drive.makeDurable(ctx)
	}
	if err != nil && changed {
		f.changed.Store(true)
	}
	return err
}

// Flush is Sync if anything was written or made through this file.
func (f *File) Flush(ctx context.Context) error {
	if !f.changed.Load() {
		return nil
	}
	return f.Sync(ctx)
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

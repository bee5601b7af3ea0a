package pgstore

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"mediafs/blobstore"
)

// Allocate reserves nothing, which a database can't do for one file; it sets the size, and empties ranges.
func (f *File) Allocate(ctx context.Context, mode blobstore.AllocateMode, off, n int64) error {
	switch {
	case off < 0 || n <= 0:
		return translate(ctx, "allocate", blobstore.ErrInvalid)
	case off > blobstore.MaxFileSize-n:
		return translate(ctx, "allocate", blobstore.ErrTooLarge)
	case mode == blobstore.AllocateKeepSize:
		return nil
	}
	defer f.changes.Add(1)
	from, to, size := off, off+n, int64(0)
	if mode == blobstore.AllocateExtend || mode == blobstore.AllocateZero {
		size = off + n
	}
	if mode == blobstore.AllocateExtend {
		from = to // nothing is emptied
	}
	d := f.blob.drive
	return f.blob.alone(ctx, func(int64) (row, error) {
		return d.one(ctx, "allocate", durably, "select "+attrColumns+" from mediafs.zero_range($1, $2, $3, $4, $5, $6, $7) n",
			d.id, int64(f.blob.ino), from, to, size, time.Now().UnixNano(), int32(d.chunk))
	})
}

// alone stores everything and then changes the content in the database while nobody writes.
func (b *blob) alone(ctx context.Context, change func(number int64) (row, error)) error {
	b.gate.Lock()
	defer b.gate.Unlock()
	if err := b.store(ctx, everything); err != nil {
		return err
	}
	b.mu.Lock()
	number := b.number
	b.mu.Unlock()
	going := b.drive.known.change(nodeKey(b.ino))
	r, err := change(number)
	going.overFor(r, err)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.version++
	b.dropSegments(0, -1)
	b.drive.changes.Add(1)
	if err != nil {
		return err
	}
	b.stored = r.attr.Size
	b.changed = true
	b.become(r)
	return nil
}

// Seek finds data and holes by the chunks there are.
func (f *File) Seek(ctx context.Context, off int64, whence blobstore.SeekWhence) (int64, error) {
	b := f.blob
	d := b.drive
	if err := b.store(ctx, everything); err != nil {
		return 0, err
	}
	b.mu.Lock()
	size, number := b.attr.Size, b.number
	b.mu.Unlock()
	if off < 0 || off >= size {
		return 0, translate(ctx, "seek", blobstore.ErrNoData)
	}
	var idx *int32
	err := d.run(ctx, "seek", reading, statement{
		sql:  "select mediafs.seek_chunk($1, $2, $3, $4)",
		args: []any{d.id, number, int32(off / d.chunk), whence == blobstore.SeekHole},
		each: func(r pgx.Rows) error { return r.Scan(&idx) },
	})
	switch {
	case err != nil:
		return 0, err
	case idx == nil:
		return 0, translate(ctx, "seek", blobstore.ErrNoData)
	}
	return min(max(off, int64(*idx)*d.chunk), size), nil
}

// CopyRange copies inside the database, wherever the ranges begin and end: of the content nothing but what src had pending passes
// through here.
func (d *Drive) CopyRange(ctx context.Context, from blobstore.File, fromOff int64, to blobstore.File, toOff, n int64) (int64, error) {
	src, ok1 := from.(*File)
	dst, ok2 := to.(*File)
	switch {
	case !ok1 || !ok2 || src.blob.drive != d || dst.blob.drive != d:
		return 0, translate(ctx, "copy", blobstore.ErrCrossDevice)
	case fromOff < 0 || toOff < 0 || n < 0 || src.blob == dst.blob && fromOff < toOff+n && toOff < fromOff+n:
		return 0, translate(ctx, "copy", blobstore.ErrInvalid)
	case toOff > blobstore.MaxFileSize-n:
		return 0, translate(ctx, "copy", blobstore.ErrTooLarge)
	}
	if err := src.blob.store(ctx, everything); err != nil {
		return 0, err
	}
	src.blob.mu.Lock()
	size, number := src.blob.attr.Size, src.blob.number
	src.blob.mu.Unlock()
	if n = min(n, size-fromOff, copyMax); n <= 0 {
		return 0, nil
	}
	defer dst.changes.Add(1)
	most := n + 2*d.chunk
	if !d.fits(ctx, most) {
		d.storePending(ctx) // there was room for it
		d.quota.bytes.begun.Add(most)
	}
	defer d.quota.bytes.over.Add(most)
	err := dst.blob.alone(ctx, func(int64) (row, error) {
		return d.one(ctx, "copy", durably, "select "+attrColumns+" from mediafs.copy_range($1, $2, $3, $4, $5, $6, $7, $8) n",
			d.id, number, fromOff, n, int64(dst.blob.ino), toOff, time.Now().UnixNano(), int32(d.chunk))
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// copyMax is how much one call copies, so that it ends well before any deadline.
const copyMax = 256 << 20

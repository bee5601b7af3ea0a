package memstore

import (
	"context"

	"mediafs/blobstore"
)

// A file is one opening of a node.
type file struct {
	drive  *drive
	node   *node
	quiet  bool // reading leaves no trace
	closed bool
}

func (d *drive) Open(ctx context.Context, ino blobstore.Ino, flags blobstore.OpenFlags) (f blobstore.File, err error) {
	err = d.do(ctx, "open", ino, func() error {
		n, err := d.node(ino)
		switch {
		case err != nil:
			return err
		case n.attr.IsDir():
			return blobstore.ErrIsDir
		case !n.attr.IsRegular():
			return blobstore.ErrInvalid
		}
		f = d.openFile(n, flags)
		return nil
	})
	return f, err
}

func (d *drive) openFile(n *node, flags blobstore.OpenFlags) *file {
	if flags.Has(blobstore.OpenTruncate) {
		n.content.truncate(0)
		n.modified()
	}
	n.open++
	return &file{drive: d, node: n, quiet: flags.Has(blobstore.OpenNoAtime)}
}

// checkRange is what the kernel checks of a range to be written (generic_write_checks, vfs_fallocate).
func checkRange(off, n int64) error {
	switch {
	case off < 0 || n < 0:
		return blobstore.ErrInvalid
	case off > blobstore.MaxFileSize-n:
		return blobstore.ErrTooLarge
	}
	return nil
}

func (f *file) do(ctx context.Context, op string, what func() error) error {
	return f.drive.do(ctx, op, f.node.attr.Ino, what)
}

func (f *file) ReadAt(ctx context.Context, p []byte, off int64) (n int, err error) {
	err = f.do(ctx, "read", func() error {
		if off < 0 {
			return blobstore.ErrInvalid
		}
		if !f.quiet && len(p) > 0 {
			f.node.accessed()
		}
		n = f.node.content.readAt(p, off)
		return nil
	})
	return n, err
}

func (f *file) WriteAt(ctx context.Context, p []byte, off int64) (n int, err error) {
	err = f.do(ctx, "write", func() error {
		if err := checkRange(off, int64(len(p))); err != nil {
			return err
		}
		room, err := f.drive.room(&f.node.content, off, int64(len(p)))
		if err != nil {
			return err
		}
		if n = int(room); n > 0 {
			f.node.content.writeAt(p[:n], off)
			f.node.modified()
		}
		return nil
	})
	return n, err
}

func (f *file) Sync(ctx context.Context) error {
	return f.do(ctx, "sync", func() error { return nil })
}

func (f *file) Flush(ctx context.Context) error {
	return f.do(ctx, "flush", func() error { return nil })
}

// Allocate reserves nothing, for memory can't be promised: it grows the file, zeroes it or makes holes in it.
func (f *file) Allocate(ctx context.Context, mode blobstore.AllocateMode, off, n int64) error {
	return f.do(ctx, "allocate", func() error {
		if n == 0 {
			return blobstore.ErrInvalid
		}
		if err := checkRange(off, n); err != nil {
			return err
		}
		c := &f.node.content
		switch mode {
		case blobstore.AllocateKeepSize:
		case blobstore.AllocateExtend:
			c.size = max(c.size, off+n)
		case blobstore.AllocatePunchHole, blobstore.AllocateZeroKeep:
			c.zero(off, n)
		case blobstore.AllocateZero:
			c.zero(off, n)
			c.size = max(c.size, off+n)
		default:
			return blobstore.ErrInvalid
		}
		f.node.modified()
		return nil
	})
}

func (f *file) Seek(ctx context.Context, off int64, whence blobstore.SeekWhence) (found int64, err error) {
	err = f.do(ctx, "seek in", func() (err error) {
		found, err = f.node.content.seek(off, whence)
		return err
	})
	return found, err
}

// CopyRange shortens the range to what src has before it looks at anything else, as generic_copy_file_checks of the kernel.
func (d *drive) CopyRange(
	ctx context.Context, src blobstore.File, srcOff int64, dst blobstore.File, dstOff, n int64,
) (copied int64, err error) {
	from, ok := src.(*file)
	to, okToo := dst.(*file)
	if !ok || !okToo || from.drive != d || to.drive != d {
		return 0, blobstore.ErrCrossDevice
	}
	err = to.do(ctx, "copy to", func() error {
		if srcOff < 0 || dstOff < 0 || n < 0 {
			return blobstore.ErrInvalid
		}
		n := min(n, max(from.node.content.size-srcOff, 0))
		if err := checkRange(dstOff, n); err != nil {
			return err
		}
		if from.node == to.node && srcOff < dstOff+n && dstOff < srcOff+n {
			return blobstore.ErrInvalid
		}
		// Holes are copied as holes, and yet counted here as what could be written: a little less is copied than could be at the limit.
		n, err := d.room(&to.node.content, dstOff, n)
		if err != nil {
			return err
		}
		if n > 0 {
			to.node.content.copyFrom(&from.node.content, srcOff, dstOff, n)
			to.node.modified()
		}
		copied = n
		return nil
	})
	return copied, err
}

func (f *file) Close() error {
	f.drive.mu.Lock()
	defer f.drive.mu.Unlock()
	if !f.closed {
		f.closed = true
		f.node.open--
		f.drive.drop(f.node)
	}
	return nil
}

package dirstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// dirBuffer is how many bytes of a folder are read at a time: some 500 to 1,000 entries.
const dirBuffer = 32 << 10

// dir is a folder opened for listing.
type dir struct {
	drive *Drive
	node  *node
	d     *descriptor

	// What was read and not passed on yet; it begins after the entry with the position next. buf is nil before the
	// first entry and after the last.
	buf, rest []byte
	next      uint64

	closed bool
}

// OpenDir opens a folder for listing.
func (d *Drive) OpenDir(ctx context.Context, ino blobstore.Ino) (_ blobstore.Dir, err error) {
	defer wrap("open folder", ino, &err)
	n, at, err := d.holdFolder(ctx, ino)
	if err != nil {
		return nil, err
	}
	defer at.release()
	fd, err := openat(at.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		d.drop(n)
		return nil, err
	}
	return &dir{drive: d, node: n, d: newDescriptor(fd)}, nil
}

// Read passes entries on. A position is the offset that getdents64(2) gives an entry, d_off, which any file system takes
// back in lseek(2).
func (l *dir) Read(ctx context.Context, after uint64, attributes bool, take func(*blobstore.Entry) bool) (err error) {
	defer wrap("read folder", l.drive.number(l.node), &err)
	if after == 0 || after != l.next || l.buf == nil {
		if _, err := unix.Seek(l.d.fd, int64(after), unix.SEEK_SET); err != nil {
			return err
		}
		l.rest, l.next = nil, after
	}
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if len(l.rest) == 0 {
			if err := l.fill(); err != nil {
				return err
			}
			if len(l.rest) == 0 {
				l.buf = nil
				return nil
			}
		}
		entry, rest := parseEntry(l.rest)
		pass, err := l.complete(&entry, attributes)
		if err != nil {
			return err
		}
		if pass && !take(&entry) {
			if entry.Complete {
				l.drive.Forget(entry.Attr.Ino, 1)
			}
			return nil
		}
		l.rest, l.next = rest, entry.Position
	}
}

// fill reads the next part of the folder; nothing at its end, and nothing of a folder that is removed.
func (l *dir) fill() error {
	if l.buf == nil {
		l.buf = make([]byte, dirBuffer)
	}
	var n int
	err := retry(func() (err error) { n, err = unix.Getdents(l.d.fd, l.buf); return err })
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	l.rest = l.buf[:max(n, 0)]
	return err
}

// parseEntry takes one entry off the front of what getdents64(2) returned. Its number is that of the inode still.
//
//	struct linux_dirent64 { u64 d_ino; s64 d_off; u16 d_reclen; u8 d_type; char d_name[]; }
func parseEntry(b []byte) (entry blobstore.Entry, rest []byte) {
	const offset, length, kind, name = 8, 16, 18, 19
	size := binary.NativeEndian.Uint16(b[length:])
	text, _, _ := bytes.Cut(b[name:size], []byte{0})
	return blobstore.Entry{
		Name: string(text),
		Attr: blobstore.Attr{
			Ino:  blobstore.Ino(binary.NativeEndian.Uint64(b)),
			Mode: uint32(b[kind]) << 12, // DT_* are the types of a mode, IFTODT of dirent.h
		},
		Position: binary.NativeEndian.Uint64(b[offset:]),
	}, b[size:]
}

// complete makes an entry what a drive's user may see of it, and says whether it is there at all.
func (l *dir) complete(entry *blobstore.Entry, attributes bool) (bool, error) {
	d := l.drive
	number := uint64(entry.Attr.Ino)
	entry.Attr.Ino = d.ino(number)
	switch {
	case entry.Name == "..":
		if l.node == d.root {
			entry.Attr.Ino = blobstore.RootIno // what is above is nobody's business
		}
		return true, nil
	case entry.Name == ".":
		return true, nil
	case !attributes && entry.Attr.Mode != 0:
		return true, nil
	}
	l.node.entries.RLock()
	defer l.node.entries.RUnlock()
	var st unix.Statx_t
	err := d.statAt(l.d, entry.Name, &st)
	switch {
	case errors.Is(err, blobstore.ErrCrossDevice):
		entry.Attr.Mode = uint32(st.Mode) & unix.S_IFMT
		return true, nil
	case errors.Is(err, unix.ENOENT):
		return false, nil
	case err != nil:
		return false, err
	}
	if !attributes {
		entry.Attr.Mode = uint32(st.Mode) & unix.S_IFMT
		return true, nil
	}
	d.enter(place{l.node, entry.Name}, &st, nil)
	entry.Attr, entry.Complete = d.attr(&st), true
	return true, nil
}

// Sync is fsync(2) of the folder.
func (l *dir) Sync(ctx context.Context) (err error) {
	defer wrap("sync folder", l.drive.number(l.node), &err)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return retry(func() error { return unix.Fsync(l.d.fd) })
}

// Close lets the folder go. Closing it once more does nothing.
func (l *dir) Close() (err error) {
	if l.closed {
		return nil
	}
	l.closed = true
	defer wrap("close folder", l.drive.number(l.node), &err)
	l.drive.drop(l.node)
	return l.d.close()
}

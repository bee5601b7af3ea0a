package dirstore

import (
	"context"
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// xattrs calls do with the path of a node, for the system calls of xattr(7) take no O_PATH descriptor.
func (d *Drive) xattrs(ctx context.Context, ino blobstore.Ino, do func(path string) error) error {
	n, err := d.hold(ctx, ino)
	if err != nil {
		return err
	}
	defer d.drop(n)
	var st unix.Statx_t
	fd, err := d.open(n, &st)
	if err != nil {
		return err
	}
	defer fd.release()
	return do(fd.path())
}

// isFact says whether an attribute is one that the drive tells (blobstore.XattrFacts), whatever the file below has by that name. A job is none: it is
// an attribute of the file below.
func isFact(name string) bool {
	return strings.HasPrefix(name, blobstore.XattrFacts) && name != blobstore.XattrJob
}

// GetXattr returns the value of an extended attribute.
func (d *Drive) GetXattr(ctx context.Context, ino blobstore.Ino, name string) (value []byte, err error) {
	defer wrap("get xattr", ino, &err)
	if isFact(name) {
		return d.fact(ctx, ino, name)
	}
	err = d.xattrs(ctx, ino, func(path string) error {
		value, err = readSized(func(buf []byte) (int, error) { return unix.Getxattr(path, name, buf) })
		return err
	})
	return value, err
}

// fact reads what blobstore.XattrFacts and blobstore.XattrID promise. What the store's index or catalogue can't tell is not there.
func (d *Drive) fact(ctx context.Context, ino blobstore.Ino, name string) ([]byte, error) {
	facts, err := d.facts(ctx, ino)
	if err != nil {
		return nil, err
	}
	if value, ok := facts[name]; ok {
		return []byte(value), nil
	}
	return nil, blobstore.ErrNoXattr
}

// ListXattr returns the names of the extended attributes.
func (d *Drive) ListXattr(ctx context.Context, ino blobstore.Ino) (names []string, err error) {
	defer wrap("list xattrs", ino, &err)
	err = d.xattrs(ctx, ino, func(path string) error {
		list, err := readSized(func(buf []byte) (int, error) { return unix.Listxattr(path, buf) })
		names = slices.DeleteFunc(strings.FieldsFunc(string(list), func(r rune) bool { return r == 0 }), isFact)
		return err
	})
	if err != nil {
		return nil, err
	}
	facts, err := d.facts(ctx, ino)
	if err != nil {
		return nil, err
	}
	size := 0
	for _, name := range names {
		size += len(name) + 1
	}
	for name := range facts {
		if size += len(name) + 1; size > maxXattrList {
			break
		}
		names = append(names, name)
	}
	return names, nil
}

// maxXattrList is how many bytes listxattr(2) can return, XATTR_LIST_MAX of limits.h.
const maxXattrList = 64 << 10

// readSized calls read with a buffer that is large enough for what there is. Of one without length, read tells how large that
// must be.
func readSized(read func(buf []byte) (int, error)) ([]byte, error) {
	for {
		size, err := read(nil)
		if err != nil || size == 0 {
			return nil, err
		}
		buf := make([]byte, size)
		n, err := read(buf)
		if errors.Is(err, unix.ERANGE) {
			continue // it has grown meanwhile
		}
		return buf[:max(n, 0)], err
	}
}

// SetXattr sets an extended attribute.
func (d *Drive) SetXattr(ctx context.Context, ino blobstore.Ino, name string, value []byte, mode blobstore.XattrMode) (err error) {
	defer wrap("set xattr", ino, &err)
	flags, ok := map[blobstore.XattrMode]int{
		blobstore.XattrSet:     0,
		blobstore.XattrCreate:  unix.XATTR_CREATE,
		blobstore.XattrReplace: unix.XATTR_REPLACE,
	}[mode]
	switch {
	case !ok:
		return blobstore.ErrInvalid
	case isFact(name):
		return blobstore.ErrPermission
	case name == blobstore.XattrJob && blobstore.CheckJob(string(value)) != nil:
		return blobstore.CheckJob(string(value))
	}
	d.changed.Store(true)
	if err := d.xattrs(ctx, ino, func(path string) error { return unix.Setxattr(path, name, value, flags) }); err != nil {
		return err
	}
	return d.noteJob(ctx, ino, name)
}

// RemoveXattr removes an extended attribute.
func (d *Drive) RemoveXattr(ctx context.Context, ino blobstore.Ino, name string) (err error) {
	defer wrap("remove xattr", ino, &err)
	if isFact(name) {
		return blobstore.ErrPermission
	}
	d.changed.Store(true)
	if err := d.xattrs(ctx, ino, func(path string) error { return unix.Removexattr(path, name) }); err != nil {
		return err
	}
	return d.noteJob(ctx, ino, name)
}

// noteJob notes that an attribute of a node was changed, if it is the job.
func (d *Drive) noteJob(ctx context.Context, ino blobstore.Ino, name string) error {
	if name != blobstore.XattrJob {
		return nil
	}
	n, err := d.hold(ctx, ino)
	if err != nil {
		return err
	}
	defer d.drop(n)
	if !n.folder {
		d.inPlace.noteUnlessNew(n.id)
	}
	return nil
}

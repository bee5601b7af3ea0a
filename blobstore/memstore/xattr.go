package memstore

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"mediafs/blobstore"
)

// maxXattrList is how many bytes the names of a node's xattrs may take, a NUL after each: what listxattr(2) can return,
// XATTR_LIST_MAX of limits.h.
const maxXattrList = 64 << 10

func (d *drive) GetXattr(ctx context.Context, ino blobstore.Ino, name string) (value []byte, err error) {
	err = d.do(ctx, "get xattr of", ino, func() error {
		n, err := d.node(ino)
		if err != nil {
			return err
		}
		if strings.HasPrefix(name, blobstore.XattrFacts) {
			value, err = n.fact(name)
			return err
		}
		v, ok := n.xattrs[name]
		if !ok {
			return blobstore.ErrNoXattr
		}
		value = slices.Clone(v)
		return nil
	})
	return value, err
}

func (d *drive) SetXattr(ctx context.Context, ino blobstore.Ino, name string, value []byte, mode blobstore.XattrMode) error {
	return d.do(ctx, "set xattr of", ino, func() error {
		n, err := d.node(ino)
		if err != nil {
			return err
		}
		_, there := n.xattrs[name]
		switch {
		case name == "":
			return blobstore.ErrInvalid
		case strings.HasPrefix(name, blobstore.XattrFacts):
			return blobstore.ErrPermission
		case len(name) > blobstore.MaxXattrName || len(value) > blobstore.MaxXattrValue:
			return blobstore.ErrTooBig
		case there && mode == blobstore.XattrCreate:
			return blobstore.ErrExist
		case !there && mode == blobstore.XattrReplace:
			return blobstore.ErrNoXattr
		case !there && n.xattrList()+len(name)+1 > maxXattrList:
			return blobstore.ErrNoSpace
		}
		if n.xattrs == nil {
			n.xattrs = make(map[string][]byte)
		}
		n.xattrs[name] = slices.Clone(value)
		n.changed()
		return nil
	})
}

// fact is what blobstore.XattrFacts promises.
func (n *node) fact(name string) ([]byte, error) {
	switch {
	case !n.attr.IsRegular():
	case name == blobstore.XattrAccessCount:
		return strconv.AppendInt(nil, int64(n.accesses), 10), nil
	case name == blobstore.XattrLastAccessed && n.accesses > 0:
		return time.Unix(0, n.accessedNs).UTC().AppendFormat(nil, time.RFC3339Nano), nil
	}
	return nil, blobstore.ErrNoXattr
}

// xattrList is how many bytes the names take.
func (n *node) xattrList() (size int) {
	for name := range n.xattrs {
		size += len(name) + 1
	}
	return size
}

func (d *drive) ListXattr(ctx context.Context, ino blobstore.Ino) (names []string, err error) {
	err = d.do(ctx, "list xattrs of", ino, func() error {
		n, err := d.node(ino)
		if err != nil {
			return err
		}
		names = slices.Sorted(maps.Keys(n.xattrs))
		return nil
	})
	return names, err
}

func (d *drive) RemoveXattr(ctx context.Context, ino blobstore.Ino, name string) error {
	return d.do(ctx, "remove xattr of", ino, func() error {
		n, err := d.node(ino)
		if err != nil {
			return err
		}
		if strings.HasPrefix(name, blobstore.XattrFacts) {
			return blobstore.ErrPermission
		}
		if _, ok := n.xattrs[name]; !ok {
			return blobstore.ErrNoXattr
		}
		delete(n.xattrs, name)
		n.changed()
		return nil
	})
}

package memstore

import (
	"context"
	"maps"
	"slices"
	"strings"

	"mediafs/blobstore"
)

// maxXattrList is how many bytes the names of a node's xattrs may take, a NUL after each: what listxattr(2) can return,
// XATTR_LIST_MAX of limits.h, less what those of the facts take at most.
const maxXattrList = 64<<10 - 512

func (d *drive) GetXattr(ctx context.Context, ino blobstore.Ino, name string) (value []byte, err error) {
	err = d.do(ctx, "get xattr of", ino, func() error {
		n, err := d.node(ino)
		if err != nil {
			return err
		}
		if isFact(name) {
			fact, ok := d.facts(n)[name]
			if !ok {
				return blobstore.ErrNoXattr
			}
			value = []byte(fact)
			return nil
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
		case isFact(name) || name == blobstore.XattrJob && !n.mayHaveJob():
			return blobstore.ErrPermission
		case name == blobstore.XattrJob && blobstore.CheckJob(string(value)) != nil:
			return blobstore.CheckJob(string(value))
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

// isFact says whether an attribute is one that nobody may set.
func isFact(name string) bool {
	return strings.HasPrefix(name, blobstore.XattrFacts) && name != blobstore.XattrJob
}

// mayHaveJob says whether a node is one that xattr(7) lets users have attributes of.
func (n *node) mayHaveJob() bool { return n.attr.IsRegular() || n.attr.IsDir() }

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
		names = slices.AppendSeq(names, maps.Keys(d.facts(n)))
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
		if isFact(name) {
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

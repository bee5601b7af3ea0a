package memstore

import (
	"context"

	"mediafs/blobstore"
)

// Rename checks in the order of the kernel's do_renameat2 and vfs_rename, so that an operation that is wrong in two ways
// gives the error that it gives on a local disk.
func (d *drive) Rename(ctx context.Context, op blobstore.Rename) error {
	return d.do(ctx, "rename in", op.Parent, func() error {
		from, e, err := d.entry(op.Parent, op.Name)
		if err != nil {
			return err
		}
		to, err := d.parent(op.NewParent, op.NewName)
		if err != nil {
			return err
		}
		if to.removed() {
			return blobstore.ErrNotExist
		}
		target := to.folder.names[op.NewName]

		switch op.Mode {
		case blobstore.RenameReplace:
		case blobstore.RenameNoReplace:
			if target != nil {
				return blobstore.ErrExist
			}
		case blobstore.RenameExchange:
			if target == nil {
				return blobstore.ErrNotExist
			}
		default:
			return blobstore.ErrInvalid
		}
		if to.inside(e.node) {
			return blobstore.ErrInvalid
		}
		if target != nil && from.inside(target.node) {
			if op.Mode == blobstore.RenameExchange {
				return blobstore.ErrInvalid
			}
			return blobstore.ErrNotEmpty
		}
		if target != nil && target.node == e.node {
			return nil // two names of one node: rename(2) does nothing
		}

		if op.Mode == blobstore.RenameExchange {
			one, other := e.node, target.node
			from.setEntry(e, other)
			to.setEntry(target, one)
			one.changed()
			other.changed()
			return nil
		}
		if target != nil {
			if err := target.node.replaceable(e.node); err != nil {
				return err
			}
		}
		moved := e.node
		d.removeEntry(from, e)
		if target == nil {
			d.addEntry(to, op.NewName, moved)
		} else {
			replaced := target.node
			to.setEntry(target, moved)
			d.loseName(replaced)
		}
		moved.changed()
		return nil
	})
}

// replaceable says what keeps a node from being replaced by another, rename(2).
func (n *node) replaceable(by *node) error {
	switch {
	case by.attr.IsDir() && !n.attr.IsDir():
		return blobstore.ErrNotDir
	case !by.attr.IsDir() && n.attr.IsDir():
		return blobstore.ErrIsDir
	case len(n.folder.names) > 0:
		return blobstore.ErrNotEmpty
	}
	return nil
}

// inside says whether a folder is another node or somewhere beneath it.
func (n *node) inside(other *node) bool {
	for ; n != other; n = n.folder.parent {
		if n.folder.parent == n {
			return false
		}
	}
	return true
}

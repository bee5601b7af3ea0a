package memstore

import (
	"context"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

func (d *drive) Lookup(ctx context.Context, parent blobstore.Ino, name string) (attr blobstore.Attr, err error) {
	err = d.do(ctx, "look up in", parent, func() error {
		_, e, err := d.entry(parent, name)
		if err != nil {
			return err
		}
		attr = e.node.stat()
		return nil
	})
	return attr, err
}

// Forget has nothing to do: a node is found by its number for as long as it lives.
func (d *drive) Forget(blobstore.Ino, uint64) {}

func (d *drive) Create(
	ctx context.Context, parent blobstore.Ino, name string, what blobstore.NewNode, flags blobstore.OpenFlags,
) (f blobstore.File, attr blobstore.Attr, created bool, err error) {
	err = d.do(ctx, "create in", parent, func() error {
		p, err := d.parent(parent, name)
		if err != nil {
			return err
		}
		var n *node
		if e := p.folder.names[name]; e == nil {
			what.Mode = unix.S_IFREG | what.Mode&0o7777
			n, err = d.make(p, name, what)
			created = err == nil
		} else {
			n, err = e.node, e.node.createAgain(flags)
		}
		if err != nil {
			return err
		}
		f = d.openFile(n, flags)
		attr = n.stat()
		return nil
	})
	return f, attr, created, err
}

// createAgain says whether Create may open a node that was there before it, as open(2) does with O_CREAT and O_NOFOLLOW.
func (n *node) createAgain(flags blobstore.OpenFlags) error {
	switch {
	case flags.Has(blobstore.OpenExclusive):
		return blobstore.ErrExist
	case n.attr.IsDir():
		return blobstore.ErrIsDir
	case n.attr.Type() == unix.S_IFLNK:
		return blobstore.ErrLoop
	case !n.attr.IsRegular():
		return blobstore.ErrInvalid
	}
	return nil
}

func (d *drive) Make(ctx context.Context, parent blobstore.Ino, name string, what blobstore.NewNode) (attr blobstore.Attr, err error) {
	err = d.do(ctx, "make in", parent, func() error {
		p, err := d.parent(parent, name)
		if err != nil {
			return err
		}
		if p.folder.names[name] != nil {
			return blobstore.ErrExist
		}
		n, err := d.make(p, name, what)
		if err != nil {
			return err
		}
		attr = n.stat()
		return nil
	})
	return attr, err
}

// make gives a new node a name that is free.
func (d *drive) make(parent *node, name string, what blobstore.NewNode) (*node, error) {
	switch what.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		if what.Target == "" {
			return nil, blobstore.ErrNotExist // symlink(2)
		}
		if len(what.Target) > blobstore.MaxTargetLen {
			return nil, blobstore.ErrNameTooLong // symlink(2)
		}
	case unix.S_IFREG, unix.S_IFDIR, unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR, unix.S_IFBLK:
	default:
		return nil, blobstore.ErrInvalid // mknod(2)
	}
	if parent.removed() {
		return nil, blobstore.ErrNotExist
	}
	if d.maxFiles > 0 && d.usedFiles() >= d.maxFiles {
		return nil, blobstore.ErrQuota
	}
	n := d.newNode(what, parent)
	if !n.attr.IsDir() {
		n.attr.Nlink = 1
	}
	d.addEntry(parent, name, n)
	return n, nil
}

func (d *drive) Link(ctx context.Context, ino, parent blobstore.Ino, name string) (attr blobstore.Attr, err error) {
	err = d.do(ctx, "link", ino, func() error {
		n, err := d.node(ino)
		if err != nil {
			return err
		}
		p, err := d.parent(parent, name)
		switch {
		case err != nil:
			return err
		case p.removed():
			return blobstore.ErrNotExist
		case p.folder.names[name] != nil:
			return blobstore.ErrExist
		case n.attr.IsDir():
			return blobstore.ErrPermission
		case n.attr.Nlink == 0:
			return blobstore.ErrNotExist // vfs_link of the kernel: what has lost its last name gets no other
		case n.attr.Nlink >= blobstore.MaxLinks:
			return blobstore.ErrTooManyLinks
		}
		n.attr.Nlink++
		n.changed()
		d.addEntry(p, name, n)
		attr = n.stat()
		return nil
	})
	return attr, err
}

func (d *drive) Unlink(ctx context.Context, parent blobstore.Ino, name string) error {
	return d.do(ctx, "unlink in", parent, func() error {
		p, e, err := d.entry(parent, name)
		if err != nil {
			return err
		}
		if e.node.attr.IsDir() {
			return blobstore.ErrIsDir
		}
		d.removeEntry(p, e)
		d.loseName(e.node)
		return nil
	})
}

func (d *drive) Rmdir(ctx context.Context, parent blobstore.Ino, name string) error {
	return d.do(ctx, "remove folder in", parent, func() error {
		p, e, err := d.entry(parent, name)
		if err != nil {
			return err
		}
		if !e.node.attr.IsDir() {
			return blobstore.ErrNotDir
		}
		if len(e.node.folder.names) > 0 {
			return blobstore.ErrNotEmpty
		}
		d.removeEntry(p, e)
		d.loseName(e.node)
		return nil
	})
}

// loseName takes a name from a node whose entry is gone, and the node with its last.
func (d *drive) loseName(n *node) {
	if n.attr.IsDir() {
		n.attr.Nlink = 0
	} else {
		n.attr.Nlink--
	}
	n.changed()
	d.drop(n)
}

func (d *drive) Readlink(ctx context.Context, ino blobstore.Ino) (target string, err error) {
	err = d.do(ctx, "read link", ino, func() error {
		n, err := d.node(ino)
		if err != nil {
			return err
		}
		if n.attr.Type() != unix.S_IFLNK {
			return blobstore.ErrInvalid
		}
		target = n.target
		return nil
	})
	return target, err
}

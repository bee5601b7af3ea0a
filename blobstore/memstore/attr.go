package memstore

import (
	"context"

	"mediafs/blobstore"
)

func (n *node) stat() blobstore.Attr {
	a := n.attr
	if a.IsRegular() {
		a.Size, a.Allocated = n.content.size, n.content.allocated()
	}
	return a
}

// changed is what a change of attributes, names or xattrs does to a node.
func (n *node) changed() { n.attr.CtimeNs = now() }

// modified is what a change of content does to a node.
func (n *node) modified() {
	t := now()
	n.attr.MtimeNs, n.attr.CtimeNs = t, t
}

// accessed is what reading does to a node.
func (n *node) accessed() {
	if t := now(); blobstore.AtimeDue(&n.attr, t) {
		n.attr.AtimeNs = t
	}
}

func (d *drive) Attr(ctx context.Context, ino blobstore.Ino) (attr blobstore.Attr, err error) {
	err = d.do(ctx, "attributes of", ino, func() error {
		n, err := d.node(ino)
		if err != nil {
			return err
		}
		attr = n.stat()
		return nil
	})
	return attr, err
}

func (d *drive) SetAttr(ctx context.Context, ino blobstore.Ino, c blobstore.AttrChange) (attr blobstore.Attr, err error) {
	err = d.do(ctx, "set attributes of", ino, func() error {
		n, err := d.node(ino)
		if err != nil {
			return err
		}
		if err := n.allows(c); err != nil {
			return err
		}
		n.apply(c)
		attr = n.stat()
		return nil
	})
	return attr, err
}

// allows says what is wrong with a change, so that it is made whole or not at all.
func (n *node) allows(c blobstore.AttrChange) error {
	if c.Set.Has(blobstore.SetMode) && n.target != "" {
		return blobstore.ErrNotSupported // notify_change of the kernel: the mode of a symbolic link never changes
	}
	if !c.Set.Has(blobstore.SetSize) {
		return nil
	}
	switch {
	case n.attr.IsDir():
		return blobstore.ErrIsDir
	case !n.attr.IsRegular() || c.Size < 0:
		return blobstore.ErrInvalid
	case c.Size > blobstore.MaxFileSize:
		return blobstore.ErrTooLarge
	}
	return nil
}

func (n *node) apply(c blobstore.AttrChange) {
	if c.Set == 0 {
		return
	}
	n.changed()
	if c.Set.Has(blobstore.SetMode) {
		n.attr.Mode = n.attr.Type() | c.Mode&0o7777
	}
	if c.Set.Has(blobstore.SetKillPriv) {
		n.attr.Mode = blobstore.DropPriv(n.attr.Mode)
	}
	if c.Set.Has(blobstore.SetUID) {
		n.attr.UID = c.UID
	}
	if c.Set.Has(blobstore.SetGID) {
		n.attr.GID = c.GID
	}
	if c.Set.Has(blobstore.SetSize) {
		n.content.truncate(c.Size)
		n.modified()
	}
	if c.Set.Has(blobstore.SetAtime) {
		n.attr.AtimeNs = c.AtimeNs
	}
	if c.Set.Has(blobstore.SetMtime) {
		n.attr.MtimeNs = c.MtimeNs
	}
}

package dirstore

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// Link gives a node one more name.
func (d *Drive) Link(ctx context.Context, ino, parent blobstore.Ino, name string) (attr blobstore.Attr, err error) {
	defer wrap("link", ino, &err)
	if err := blobstore.CheckName(name); err != nil {
		return attr, err
	}
	n, err := d.hold(ctx, ino)
	if err != nil {
		return attr, err
	}
	defer d.drop(n)
	p, folder, err := d.holdFolder(ctx, parent)
	if err != nil {
		return attr, err
	}
	defer d.drop(p)
	defer folder.release()
	var st unix.Statx_t
	fd, err := d.open(n, &st)
	if err != nil {
		return attr, err
	}
	defer fd.release()
	p.entries.Lock()
	defer p.entries.Unlock()
	d.changed.Store(true)
	err = unix.Linkat(unix.AT_FDCWD, fd.path(), folder.fd, name, unix.AT_SYMLINK_FOLLOW)
	if err != nil {
		return attr, err
	}
	return d.found(place{p, name}, folder)
}

// Unlink removes the name of a node that is not a folder.
func (d *Drive) Unlink(ctx context.Context, parent blobstore.Ino, name string) (err error) {
	defer wrap("unlink", parent, &err)
	return d.remove(ctx, parent, name, 0)
}

// Rmdir removes an empty folder.
func (d *Drive) Rmdir(ctx context.Context, parent blobstore.Ino, name string) (err error) {
	defer wrap("rmdir", parent, &err)
	return d.remove(ctx, parent, name, unix.AT_REMOVEDIR)
}

func (d *Drive) remove(ctx context.Context, parent blobstore.Ino, name string, flags int) error {
	if err := blobstore.CheckName(name); err != nil {
		return err
	}
	p, folder, err := d.holdFolder(ctx, parent)
	if err != nil {
		return err
	}
	defer d.drop(p)
	defer folder.release()
	d.moves.RLock()
	defer d.moves.RUnlock()
	// Shared, for freeing the blocks of a large file takes its time.
	p.entries.RLock()
	defer p.entries.RUnlock()
	var st unix.Statx_t
	if err := d.statAt(folder, name, &st); err != nil {
		return err
	}
	d.changed.Store(true)
	if err := retry(func() error { return unix.Unlinkat(folder.fd, name, flags) }); err != nil {
		return err
	}
	d.nameless(ctx, &st)
	d.moved(&st, place{p, name}, nil)
	return nil
}

// Rename moves a name.
func (d *Drive) Rename(ctx context.Context, op blobstore.Rename) (err error) {
	defer wrap("rename", op.Parent, &err)
	for _, name := range []string{op.Name, op.NewName} {
		if err := blobstore.CheckName(name); err != nil {
			return err
		}
	}
	flags, ok := map[blobstore.RenameMode]uint{
		blobstore.RenameReplace:   0,
		blobstore.RenameNoReplace: unix.RENAME_NOREPLACE,
		blobstore.RenameExchange:  unix.RENAME_EXCHANGE,
	}[op.Mode]
	if !ok {
		return blobstore.ErrInvalid
	}
	from, fromFolder, err := d.holdFolder(ctx, op.Parent)
	if err != nil {
		return err
	}
	defer d.drop(from)
	defer fromFolder.release()
	to, toFolder, err := d.holdFolder(ctx, op.NewParent)
	if err != nil {
		return err
	}
	defer d.drop(to)
	defer toFolder.release()

	d.renames.Lock()
	defer d.renames.Unlock()
	d.moves.RLock()
	defer d.moves.RUnlock()
	defer lockEntries(from, to)()
	var moving, there unix.Statx_t
	if err := d.statAt(fromFolder, op.Name, &moving); err != nil {
		return err
	}
	replaced := d.statAt(toFolder, op.NewName, &there) == nil
	d.changed.Store(true)
	err = d.moving(ctx, func() error {
		return retry(func() error { return unix.Renameat2(fromFolder.fd, op.Name, toFolder.fd, op.NewName, flags) })
	})
	if errors.Is(err, unix.EEXIST) && op.Mode == blobstore.RenameReplace {
		return blobstore.ErrNotEmpty // as some file systems say it, rename(2)
	}
	if err != nil {
		return err
	}
	oldPlace, newPlace := place{from, op.Name}, place{to, op.NewName}
	switch {
	case replaced && there.Ino == moving.Ino: // two names of one node: nothing happens, rename(2)
		return nil
	case !replaced:
	case op.Mode == blobstore.RenameExchange:
		d.moved(&there, newPlace, &oldPlace)
	default:
		d.nameless(ctx, &there)
		d.moved(&there, newPlace, nil)
	}
	d.moved(&moving, oldPlace, &newPlace)
	return nil
}

// lockEntries locks the entries of two folders, or of one that is both, and returns what unlocks them. Only renames lock
// two, and only one at a time renames.
func lockEntries(a, b *node) (unlock func()) {
	a.entries.Lock()
	if a.inside == b.inside {
		return a.entries.Unlock
	}
	b.entries.Lock()
	return func() {
		b.entries.Unlock()
		a.entries.Unlock()
	}
}

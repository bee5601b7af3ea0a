package dirstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

const (
	permissions = 0o7777 // the bits of a mode that are not its type
	// plain are the permissions that a node is made with. The others (set-user-ID and so on) are added when the node
	// has its owner, so that there is never a program that runs as root because it is not the user's yet.
	plain = 0o777
)

// Create makes a regular file and opens it, or opens what is there.
func (d *Drive) Create(ctx context.Context, parent blobstore.Ino, name string, node blobstore.NewNode, flags blobstore.OpenFlags) (_ blobstore.File, attr blobstore.Attr, created bool, err error) {
	defer wrap("create", parent, &err)
	if err := blobstore.CheckName(name); err != nil {
		return nil, attr, false, err
	}
	p, folder, err := d.holdFolder(ctx, parent)
	if err != nil {
		return nil, attr, false, err
	}
	defer d.drop(p)
	defer folder.release()
	p.entries.RLock()
	defer p.entries.RUnlock()
	d.changed.Store(true)

	var st unix.Statx_t
	// Another program may take away what was there before it can be opened; not for ever, though.
	const attempts = 100
	for range attempts {
		access := accessMode(flags)
		if flags.Has(blobstore.OpenNoAtime) {
			access |= unix.O_NOATIME // which whoever makes a file may ask for
		}
		began := time.Now()
		fd, err := d.making(ctx, folder, name, func() (*descriptor, error) { return d.makeFile(folder, name, access, node, &st) })
		created = err == nil
		if errors.Is(err, unix.EEXIST) && !flags.Has(blobstore.OpenExclusive) {
			fd, err = d.openThere(folder, name, flags, &st)
			if errors.Is(err, unix.ENOENT) {
				continue
			}
		}
		if err != nil {
			return nil, attr, false, err
		}
		f := &file{drive: d, d: fd, flags: flags}
		d.enter(place{p, name}, &st, f)
		f.noting.at(began) // a file that was just made is looked at by itself
		if !created && f.changes() {
			d.inPlace.note(f.node.id)
		}
		return d.shown(ctx, f), d.attr(&st), created, nil
	}
	return nil, attr, false, blobstore.ErrBusy
}

// Make makes a node without opening it.
func (d *Drive) Make(ctx context.Context, parent blobstore.Ino, name string, node blobstore.NewNode) (attr blobstore.Attr, err error) {
	defer wrap("make", parent, &err)
	if err := blobstore.CheckName(name); err != nil {
		return attr, err
	}
	p, folder, err := d.holdFolder(ctx, parent)
	if err != nil {
		return attr, err
	}
	defer d.drop(p)
	defer folder.release()
	p.entries.RLock()
	defer p.entries.RUnlock()
	d.changed.Store(true)

	var st unix.Statx_t
	fd, err := d.making(ctx, folder, name, func() (*descriptor, error) {
		if node.Mode&unix.S_IFMT == unix.S_IFREG {
			return d.makeFile(folder, name, unix.O_WRONLY, node, &st)
		}
		return d.makeOther(folder, name, node, &st)
	})
	if err != nil {
		return attr, err
	}
	defer fd.release()
	d.enter(place{p, name}, &st, nil)
	return d.attr(&st), nil
}

// makeFile makes a regular file and opens it.
func (d *Drive) makeFile(folder *descriptor, name string, access int, node blobstore.NewNode, st *unix.Statx_t) (*descriptor, error) {
	fd, err := openat(folder.fd, name, access|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, node.Mode&plain)
	if err != nil {
		return nil, err
	}
	made := newDescriptor(fd)
	if err = statx(fd, "", st); err == nil {
		err = inheritJob(folder, made, st)
	}
	if err == nil {
		err = settle(folder, made, node, st)
	}
	if err != nil {
		d.undo(folder, made, name, 0)
		return nil, err
	}
	return made, nil
}

// makeOther makes a node that is no regular file, and opens it as a place.
func (d *Drive) makeOther(folder *descriptor, name string, node blobstore.NewNode, st *unix.Statx_t) (*descriptor, error) {
	var err error
	undo := 0
	kind := node.Mode & unix.S_IFMT
	switch kind {
	case unix.S_IFDIR:
		undo = unix.AT_REMOVEDIR
		err = unix.Mkdirat(folder.fd, name, node.Mode&plain)
	case unix.S_IFLNK:
		switch {
		case node.Target == "":
			return nil, blobstore.ErrNotExist // as symlink(2)
		case len(node.Target) > blobstore.MaxTargetLen:
			return nil, blobstore.ErrNameTooLong
		}
		err = unix.Symlinkat(node.Target, folder.fd, name)
	case unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR, unix.S_IFBLK:
		// The kernel's 32-bit encoding of a device is also that of mknod(2).
		err = unix.Mknodat(folder.fd, name, kind|node.Mode&plain, int(node.Rdev))
	default:
		return nil, blobstore.ErrInvalid
	}
	if err != nil {
		return nil, err
	}
	fd, made, err := openMade(folder.fd, name, kind)
	if err != nil {
		d.undo(folder, nil, name, undo)
		return nil, err
	}
	*st = made
	opened := newDescriptor(fd)
	if kind == unix.S_IFDIR {
		err = inheritJob(folder, opened, st)
	}
	if err == nil {
		err = settle(folder, opened, node, st)
	}
	if err != nil {
		d.undo(folder, opened, name, undo)
		return nil, err
	}
	return opened, nil
}

// openMade opens, as a place, a node of this type that this process has just made. What it opens is about to be given away,
// so it must not be something else that another program has put there meanwhile: a link to a file of root's, say.
func openMade(folder int, name string, kind uint32) (fd int, st unix.Statx_t, err error) {
	if fd, err = openPath(folder, name, 0, beneath); err != nil {
		return -1, st, err
	}
	if err = statx(fd, "", &st); err == nil {
		ours := uint32(st.Mode)&unix.S_IFMT == kind && st.Uid == uint32(os.Geteuid())
		if !ours || kind != unix.S_IFDIR && st.Nlink != 1 {
			err = fmt.Errorf("another program replaced it at once: %w", blobstore.ErrBusy)
		}
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, st, err
	}
	return fd, st, nil
}

// settle gives a node just made, which st describes, the owner and the mode that were asked for, and st what came of it. The
// umask of this process plays no part.
func settle(folder, made *descriptor, node blobstore.NewNode, st *unix.Statx_t) error {
	gid := node.GID
	if st.Gid != gid {
		var parent unix.Statx_t
		if err := statx(folder.fd, "", &parent); err != nil {
			return err
		}
		if parent.Mode&unix.S_ISGID != 0 {
			gid = st.Gid // the parent's, and it stays that: inode_init_owner
		}
	}
	changed := false
	if st.Uid != node.UID || st.Gid != gid {
		changed = true
		if err := unix.Fchownat(made.fd, "", int(node.UID), int(gid), unix.AT_EMPTY_PATH); err != nil {
			return err
		}
	}
	mode := node.Mode & permissions
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		mode |= uint32(st.Mode) & unix.S_ISGID // from the parent
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK && uint32(st.Mode)&permissions != mode {
		changed = true
		if err := unix.Chmod(made.path(), mode); err != nil {
			return err
		}
	}
	if !changed {
		return nil
	}
	return statx(made.fd, "", st)
}

// undo takes back a node that could not be made whole.
func (d *Drive) undo(folder, made *descriptor, name string, flags int) {
	if made != nil {
		made.release()
	}
	if err := unix.Unlinkat(folder.fd, name, flags); err != nil {
		d.store.log.Warn("a node that could not be made whole stays", "drive", d.name, "name", name, "error", err)
	}
}

package dirstore

import (
	"context"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// Lookup finds a name in a folder. ErrCrossDevice if something is mounted there.
func (d *Drive) Lookup(ctx context.Context, parent blobstore.Ino, name string) (attr blobstore.Attr, err error) {
	defer wrap("lookup", parent, &err)
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
	return d.found(place{p, name}, folder)
}

// found returns what is at a place, and counts it as looked up. The caller has the folder's entries locked.
func (d *Drive) found(at place, folder *descriptor) (attr blobstore.Attr, err error) {
	var st unix.Statx_t
	if err := d.statAt(folder, at.name, &st); err != nil {
		return attr, err
	}
	d.enter(at, &st, nil)
	return d.attr(&st), nil
}

// Readlink returns the target of a symbolic link.
func (d *Drive) Readlink(ctx context.Context, ino blobstore.Ino) (target string, err error) {
	defer wrap("readlink", ino, &err)
	n, err := d.hold(ctx, ino)
	if err != nil {
		return "", err
	}
	defer d.drop(n)
	var st unix.Statx_t
	fd, err := d.open(n, &st)
	if err != nil {
		return "", err
	}
	defer fd.release()
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", blobstore.ErrInvalid
	}
	buf := make([]byte, blobstore.MaxTargetLen+1)
	got, err := unix.Readlinkat(fd.fd, "", buf) // the link itself, readlinkat(2)
	if err != nil {
		return "", err
	}
	return string(buf[:got]), nil
}

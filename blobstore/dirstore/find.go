package dirstore

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/blobstore"
)

// check gives ErrCrossDevice if what st tells of is on another file system or mount, and so no part of the drive.
func (d *Drive) check(st *unix.Statx_t) error {
	if d.device != [2]uint32{st.Dev_major, st.Dev_minor} {
		return blobstore.ErrCrossDevice
	}
	if d.mount != 0 && st.Mask&unix.STATX_MNT_ID != 0 && d.mount != st.Mnt_id {
		return blobstore.ErrCrossDevice
	}
	return nil
}

// statAt tells of an entry of a folder, or with an empty name of a descriptor.
func (d *Drive) statAt(folder *descriptor, name string, st *unix.Statx_t) error {
	if err := statx(folder.fd, name, st); err != nil {
		return err
	}
	return d.check(st)
}

// expect tells of an entry, or a descriptor, that should be a node, and gives ErrStale if it is another or gone.
func (d *Drive) expect(n *node, folder *descriptor, name string, st *unix.Statx_t) error {
	err := d.statAt(folder, name, st)
	if err == nil && identityOf(st) != n.id {
		return blobstore.ErrStale
	}
	return gone(err)
}

// gone turns the errors of an entry that has become another kind of thing than it was into ErrStale.
func gone(err error) error {
	for _, e := range []error{unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.EXDEV, blobstore.ErrCrossDevice} {
		if errors.Is(err, e) {
			return blobstore.ErrStale
		}
	}
	return err
}

// openAt opens an entry that should be a node as a place.
func (d *Drive) openAt(n *node, folder *descriptor, name string, flags int, st *unix.Statx_t) (*descriptor, error) {
	resolve := uint64(beneath)
	if n == d.root {
		resolve = mayMount
	}
	fd, err := openPath(folder.fd, name, flags, resolve)
	if err != nil {
		return nil, gone(err)
	}
	found := newDescriptor(fd)
	if err := d.expect(n, found, "", st); err != nil {
		found.release()
		return nil, err
	}
	return found, nil
}

// again calls find, and if that does not find a node, a second time with nothing moving.
func (d *Drive) again(find func() error) error {
	err := find()
	if errors.Is(err, blobstore.ErrStale) {
		d.moves.Lock()
		defer d.moves.Unlock()
		err = find()
	}
	return err
}

// openFolder returns a descriptor of a folder that is on the drive. The caller releases it. The caller must hold neither
// moves nor the entries of a folder.
func (d *Drive) openFolder(n *node) (fd *descriptor, err error) {
	err = d.again(func() error { fd, err = d.descend(n); return err })
	return fd, err
}

// step is an entry to go through on the way down to a folder.
type step struct {
	node *node
	name string
}

// descend is openFolder without the second try. It goes up to the nearest folder that is known to be on the drive, and
// from there down again by the names in the table.
func (d *Drive) descend(n *node) (*descriptor, error) {
	if !n.folder {
		return nil, d.noFolder(n)
	}
	at, checked, way, err := d.climb(n)
	if err != nil {
		return nil, err
	}
	for i := len(way) - 1; i >= 0; i-- {
		next, err := d.enterFolder(at, way[i], checked)
		at.release()
		if err != nil {
			return nil, err
		}
		at = next
	}
	return at, nil
}

// noFolder is the error of going into a node that is none.
func (d *Drive) noFolder(n *node) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n.places.len() == 0 && n.files == nil {
		return blobstore.ErrNotExist
	}
	return blobstore.ErrNotDir
}

// climb returns the nearest folder above n, or n itself, whose descriptor may be trusted, when that was checked, and the
// way back to n, last step first.
func (d *Drive) climb(n *node) (at *descriptor, checked time.Time, way []step, err error) {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		at, checked = d.store.folders.get(n)
		if at != nil && now.Sub(checked) < d.store.trust {
			return at, checked, way, nil
		}
		if at != nil {
			at.release()
		}
		switch {
		case n.places.len() == 0:
			return nil, now, nil, blobstore.ErrNotExist
		case len(way) > len(d.nodes):
			// Another program moved a folder into one that was in it: what the table knows makes a ring.
			return nil, now, nil, blobstore.ErrStale
		}
		p := n.places.at(0)
		way = append(way, step{n, p.name})
		if n = p.folder; n == nil {
			if !d.store.root.acquire() {
				return nil, now, nil, blobstore.ErrUnavailable
			}
			return d.store.root, now, way, nil
		}
	}
}

// enterFolder goes one step down, by the descriptor that is kept if the folder is still there.
func (d *Drive) enterFolder(from *descriptor, to step, checked time.Time) (*descriptor, error) {
	var st unix.Statx_t
	folder, _ := d.store.folders.get(to.node)
	if folder == nil {
		var err error
		if folder, err = d.openAt(to.node, from, to.name, unix.O_DIRECTORY, &st); err != nil {
			return nil, err
		}
	} else if err := d.expect(to.node, from, to.name, &st); err != nil {
		folder.release()
		// If it is not on the drive any more, let it go from the disk too.
		if fd := d.store.folders.remove(to.node, false); fd != nil {
			fd.release()
		}
		return nil, err
	}
	d.store.folders.put(to.node, folder, checked)
	return folder, nil
}

// stat tells of a node.
func (d *Drive) stat(n *node, st *unix.Statx_t) error {
	if fd := d.openFile(n, 0); fd != nil {
		defer fd.release()
		return d.statAt(fd, "", st)
	}
	return d.again(func() error {
		if n.folder {
			fd, err := d.descend(n)
			if err != nil {
				return err
			}
			defer fd.release()
			return d.statFolder(fd, st)
		}
		return d.seek(n, func(folder *descriptor, name string) error { return d.expect(n, folder, name, st) })
	})
}

// open returns a descriptor of a node, and tells of it. It is good for changing what stat(2) shows, for extended attributes
// and for opening the node anew, not for content. The caller releases it.
func (d *Drive) open(n *node, st *unix.Statx_t) (fd *descriptor, err error) {
	if fd = d.openFile(n, 0); fd == nil {
		err = d.again(func() error { fd, err = d.openNode(n, st); return err })
		return fd, err
	}
	if err := d.statAt(fd, "", st); err != nil {
		fd.release()
		return nil, err
	}
	return fd, nil
}

func (d *Drive) openNode(n *node, st *unix.Statx_t) (fd *descriptor, err error) {
	if !n.folder {
		err = d.seek(n, func(folder *descriptor, name string) error {
			fd, err = d.openAt(n, folder, name, 0, st)
			return err
		})
		return fd, err
	}
	if fd, err = d.descend(n); err != nil {
		return nil, err
	}
	if err := d.statFolder(fd, st); err != nil {
		fd.release()
		return nil, err
	}
	return fd, nil
}

// statFolder tells of a folder by its descriptor, which outlives it.
func (d *Drive) statFolder(fd *descriptor, st *unix.Statx_t) error {
	err := d.statAt(fd, "", st)
	if err == nil && st.Nlink == 0 {
		return blobstore.ErrStale
	}
	return err
}

// openFile returns the descriptor of a file that is open on a node for what flags say, or nil.
func (d *Drive) openFile(n *node, flags blobstore.OpenFlags) *descriptor {
	d.mu.Lock()
	defer d.mu.Unlock()
	for f := n.files; f != nil; f = f.next {
		if f.flags.Has(flags) && f.d.acquire() {
			return f.d
		}
	}
	return nil
}

// seek calls try with each place that a node was seen at until it is there.
func (d *Drive) seek(n *node, try func(folder *descriptor, name string) error) error {
	err := blobstore.ErrNotExist
	for i := 0; ; i++ {
		d.mu.Lock()
		if i >= n.places.len() {
			d.mu.Unlock()
			return err
		}
		at := n.places.at(i)
		at.folder.refs++
		d.mu.Unlock()
		err = d.tryPlace(at, try)
		d.drop(at.folder)
		if !errors.Is(err, blobstore.ErrStale) {
			return err
		}
	}
}

func (d *Drive) tryPlace(at place, try func(folder *descriptor, name string) error) error {
	folder, err := d.descend(at.folder)
	if errors.Is(err, blobstore.ErrNotExist) {
		return blobstore.ErrStale // the folder is gone, the node may be elsewhere
	}
	if err != nil {
		return err
	}
	defer folder.release()
	return try(folder, at.name)
}

// holdFolder is hold for the folder of an operation on one of its entries, and opens it too. The caller drops the one and
// releases the other.
func (d *Drive) holdFolder(ctx context.Context, ino blobstore.Ino) (*node, *descriptor, error) {
	n, err := d.hold(ctx, ino)
	if err != nil {
		return nil, nil, err
	}
	fd, err := d.openFolder(n)
	if err != nil {
		d.drop(n)
		return nil, nil, err
	}
	return n, fd, nil
}

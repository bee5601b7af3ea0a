package dirstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/auth"
	"mediafs/blobstore"
)

// trust is how long the descriptor of a folder is used without looking whether the folder is still on the drive.
const trust = time.Second

// Drive is one folder of the store's root.
type Drive struct {
	store     *Store
	name      string // of the folder in the store's root
	id        blobstore.DriveID
	uid, gid  uint32
	device    [2]uint32 // of the file system, major and minor
	mount     uint64    // the number of the mount; 0 where the kernel does not tell
	root      *node
	session   atomic.Pointer[auth.Session]
	scribe    *scribe
	describer *describer
	inPlace   changes
	quota     allowance

	changed atomic.Bool // something was, or may have been, written through this drive
	closed  atomic.Bool

	renames sync.Mutex // held by the one rename going on

	// moves is shared by whoever moves or removes a name, on disk and then in the table. Whoever did not find a node
	// where the table says holds it alone to look once more: the table may just have been behind.
	moves sync.RWMutex

	// changes are held by changes of attributes, which take several system calls: each by one of them, see changing.
	changes [64]sync.Mutex

	mu    sync.Mutex
	nodes map[blobstore.Ino]*node // guarded by mu
}

var _ blobstore.Drive = (*Drive)(nil)

// newDrive is the drive whose folder is open at top, which st describes.
func newDrive(s *Store, name string, id blobstore.DriveID, top *descriptor, st *unix.Statx_t) *Drive {
	d := &Drive{
		store:  s,
		name:   name,
		id:     id,
		uid:    st.Uid,
		gid:    st.Gid,
		device: [2]uint32{st.Dev_major, st.Dev_minor},
		nodes:  make(map[blobstore.Ino]*node),
	}
	if st.Mask&unix.STATX_MNT_ID != 0 {
		d.mount = st.Mnt_id
	}
	// Only root can give files away; what another user makes is their own.
	if uid := os.Geteuid(); uid != 0 {
		d.uid, d.gid = uint32(uid), uint32(os.Getegid())
	}
	d.describer = newDescriber(d)
	d.inPlace = changes{drive: d, fd: -1}
	d.root = newNode(identityOf(st), true)
	d.root.places.insert(place{nil, name})
	d.root.refs = 1 // the drive's
	d.nodes[blobstore.RootIno] = d.root
	s.folders.put(d.root, top, time.Now())
	d.quota.begin()
	return d
}

// ID is the drive's number among those that this process has opened.
func (d *Drive) ID() blobstore.DriveID { return d.id }

// Owner is who owns the drive's folder if root runs this process, and who runs it otherwise.
func (d *Drive) Owner() (uid, gid uint32) { return d.uid, d.gid }

// Renew has the drive go on with another session of the same user and role. That the session lasts is for the mount to watch:
// folders know of no session.
func (d *Drive) Renew(_ context.Context, session auth.Session) error {
	now := d.session.Load()
	if err := session.Check(time.Now()); err != nil {
		return fmt.Errorf("dirstore: renew the session: %w", err)
	}
	if session.User != now.User || session.Role != now.Role {
		return fmt.Errorf("dirstore: renew the session: %w", auth.ErrRevoked)
	}
	d.session.Store(&session)
	return nil
}

// ino is the number by which a drive's user knows an inode. The root must be RootIno, so it and the inode that has this
// number on disk change numbers.
func (d *Drive) ino(number uint64) blobstore.Ino {
	switch number {
	case d.root.id.number:
		return blobstore.RootIno
	case uint64(blobstore.RootIno):
		return blobstore.Ino(d.root.id.number)
	}
	return blobstore.Ino(number)
}

// number is the number by which a drive's user knows a node.
func (d *Drive) number(n *node) blobstore.Ino { return d.ino(n.id.number) }

// changing is what a change of a node's attributes holds.
func (d *Drive) changing(n *node) *sync.Mutex { return &d.changes[n.id.number%uint64(len(d.changes))] }

// Usage is how full the file system is that the drive is on, and within that, what the drive's quota has left.
func (d *Drive) Usage(ctx context.Context) (usage blobstore.Usage, err error) {
	defer wrap("usage", blobstore.RootIno, &err)
	if ctx.Err() != nil {
		return usage, context.Cause(ctx)
	}
	root, err := d.openFolder(d.root)
	if err != nil {
		return usage, err
	}
	defer root.release()
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(root.fd, &st) }); err != nil {
		return usage, err
	}
	block := int64(st.Frsize) //nolint:unconvert // narrower on other machines
	return d.usageWithin(ctx, blobstore.Usage{
		TotalBytes: int64(st.Blocks) * block,
		FreeBytes:  int64(st.Bavail) * block, // without what is set aside for root
		TotalFiles: int64(st.Files),
		FreeFiles:  int64(st.Ffree),
	})
}

// Close writes what was changed to the disk and lets the drive go. Closing a file does not do that (see file.Flush), so
// it is the whole file system that is synced.
func (d *Drive) Close(ctx context.Context) (err error) {
	defer wrap("close drive", blobstore.RootIno, &err)
	if d.closed.Swap(true) {
		return nil
	}
	d.endRecording(ctx)
	d.describer.close()
	d.quota.end()
	err = d.sync(ctx)
	d.mu.Lock()
	nodes := d.nodes
	d.nodes = make(map[blobstore.Ino]*node)
	var files []*file
	for _, n := range nodes {
		for f := n.files; f != nil; f = f.next {
			files = append(files, f)
		}
	}
	d.mu.Unlock()
	for _, f := range files {
		err = errors.Join(err, f.Close())
	}
	d.inPlace.close(ctx)
	d.settleQuota(ctx)
	for _, n := range nodes {
		if fd := d.store.folders.remove(n, true); fd != nil {
			fd.release()
		}
	}
	return errors.Join(err, d.store.root.close())
}

// sync makes everything durable that went through this drive, and reports what of it the kernel could not write.
func (d *Drive) sync(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if !d.changed.Load() {
		return nil
	}
	root, err := d.openFolder(d.root)
	if err != nil {
		return err
	}
	defer root.release()
	// An O_PATH descriptor can't be synced.
	fd, err := openat(root.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return retry(func() error { return unix.Syncfs(fd) })
}

package fusefs

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"mediafs/auth"
	"mediafs/blobstore"
)

// rootFolder is the root of a mount of many drives: to the rest of this package a drive with one folder, in which the entries are
// the roots of others. Its number is 0, so the ino of an entry is the whole node id of what it leads to. Nothing in it can be changed.
type rootFolder struct {
	many *drives
	attr blobstore.Attr
}

// newRoot makes a root folder that belongs to whoever mounts.
func newRoot(many *drives, mode uint32) *drive {
	now := time.Now().UnixNano()
	f := &rootFolder{many: many, attr: blobstore.Attr{
		Ino: blobstore.RootIno, Mode: unix.S_IFDIR | mode&permissions, Nlink: 2,
		UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()),
		AtimeNs: now, MtimeNs: now, CtimeNs: now,
	}}
	return &drive{Drive: f, ids: newIDs(f, f.attr.UID, f.attr.GID)}
}

func (f *rootFolder) check(ino blobstore.Ino) error {
	if ino != blobstore.RootIno {
		return fmt.Errorf("node %d: %w", ino, blobstore.ErrStale)
	}
	return nil
}

// Lookup opens the drive of a name and returns its root.
func (f *rootFolder) Lookup(ctx context.Context, parent blobstore.Ino, name string) (blobstore.Attr, error) {
	if err := f.check(parent); err != nil {
		return blobstore.Attr{}, err
	}
	d, err := f.many.holdNamed(ctx, blobstore.DriveName(name))
	if err != nil {
		return blobstore.Attr{}, err
	}
	defer d.release()
	if ended := d.suspended.Load(); ended != nil {
		return blobstore.Attr{}, *ended
	}
	attr, err := d.Attr(ctx, blobstore.RootIno)
	if err != nil {
		return blobstore.Attr{}, err
	}
	attr.Mode = d.modeOf(&attr)
	attr.UID, attr.GID = d.ids.uid(attr.UID), d.ids.gid(attr.GID)
	attr.Ino, err = rootOf(d.number)
	return attr, err
}

// rootOf is the node id of a drive's root, as an ino of the root folder.
func rootOf(number blobstore.DriveID) (blobstore.Ino, error) {
	id, err := nodeID(number, blobstore.RootIno)
	return blobstore.Ino(id), err
}

func (f *rootFolder) Attr(_ context.Context, ino blobstore.Ino) (blobstore.Attr, error) {
	return f.attr, f.check(ino)
}

func (f *rootFolder) OpenDir(_ context.Context, ino blobstore.Ino) (blobstore.Dir, error) {
	return rootListing{f}, f.check(ino)
}

// rootListing lists "." and "..", and then the drives, whose positions are their numbers and 2 more.
type rootListing struct{ folder *rootFolder }

func (l rootListing) Read(ctx context.Context, after uint64, _ bool, take func(*blobstore.Entry) bool) error {
	for position, name := range []string{1: ".", 2: ".."} {
		entry := blobstore.Entry{Name: name, Attr: l.folder.attr, Position: uint64(position)}
		if entry.Position > after && !take(&entry) {
			return nil
		}
	}
	after = max(after, 2) - 2
	if after > uint64(blobstore.MaxDriveID) {
		return nil
	}
	var wrong error
	err := l.folder.many.shown.List(ctx, blobstore.DriveID(after), func(info blobstore.DriveInfo) bool {
		entry := blobstore.Entry{Name: string(info.Name), Attr: blobstore.Attr{Mode: unix.S_IFDIR}, Position: uint64(info.ID) + 2}
		if wrong = l.folder.many.remember(info); wrong != nil {
			return false
		}
		entry.Attr.Ino, wrong = rootOf(info.ID)
		return wrong == nil && take(&entry)
	})
	if err == nil {
		err = wrong
	}
	return err
}

func (rootListing) Sync(context.Context) error { return nil }
func (rootListing) Close() error               { return nil }

func (f *rootFolder) ID() blobstore.DriveID                              { return 0 }
func (f *rootFolder) Owner() (uid, gid uint32)                           { return f.attr.UID, f.attr.GID }
func (*rootFolder) Renew(context.Context, auth.Session) error            { return nil }
func (*rootFolder) Close(context.Context) error                          { return nil }
func (*rootFolder) Forget(blobstore.Ino, uint64)                         {}
func (*rootFolder) Record(blobstore.Event)                               {}
func (*rootFolder) Usage(context.Context) (u blobstore.Usage, err error) { return u, nil }

func (f *rootFolder) ListXattr(_ context.Context, ino blobstore.Ino) ([]string, error) {
	return nil, f.check(ino)
}

func (f *rootFolder) GetXattr(_ context.Context, ino blobstore.Ino, _ string) ([]byte, error) {
	if err := f.check(ino); err != nil {
		return nil, err
	}
	return nil, blobstore.ErrNoXattr
}

func (*rootFolder) Readlink(context.Context, blobstore.Ino) (string, error) {
	return "", blobstore.ErrInvalid
}

func (*rootFolder) Open(context.Context, blobstore.Ino, blobstore.OpenFlags) (blobstore.File, error) {
	return nil, blobstore.ErrIsDir
}

func (*rootFolder) Create(
	context.Context, blobstore.Ino, string, blobstore.NewNode, blobstore.OpenFlags,
) (blobstore.File, blobstore.Attr, bool, error) {
	return nil, blobstore.Attr{}, false, blobstore.ErrPermission
}

func (*rootFolder) Make(context.Context, blobstore.Ino, string, blobstore.NewNode) (blobstore.Attr, error) {
	return blobstore.Attr{}, blobstore.ErrPermission
}

func (*rootFolder) Link(context.Context, blobstore.Ino, blobstore.Ino, string) (blobstore.Attr, error) {
	return blobstore.Attr{}, blobstore.ErrPermission
}

func (*rootFolder) SetAttr(context.Context, blobstore.Ino, blobstore.AttrChange) (blobstore.Attr, error) {
	return blobstore.Attr{}, blobstore.ErrPermission
}

func (*rootFolder) SetXattr(context.Context, blobstore.Ino, string, []byte, blobstore.XattrMode) error {
	return blobstore.ErrPermission
}

func (*rootFolder) CopyRange(context.Context, blobstore.File, int64, blobstore.File, int64, int64) (int64, error) {
	return 0, blobstore.ErrInvalid
}

func (*rootFolder) Unlink(context.Context, blobstore.Ino, string) error {
	return blobstore.ErrPermission
}
func (*rootFolder) Rmdir(context.Context, blobstore.Ino, string) error {
	return blobstore.ErrPermission
}
func (*rootFolder) Rename(context.Context, blobstore.Rename) error { return blobstore.ErrPermission }
func (*rootFolder) RemoveXattr(context.Context, blobstore.Ino, string) error {
	return blobstore.ErrPermission
}

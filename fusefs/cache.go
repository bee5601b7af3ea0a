package fusefs

import (
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"mediafs/blobstore"
)

// How long the kernel may answer from memory, without asking:
//
//   - A name leads to the same node, and a node has the same attributes, for a second: what another mount of the drive changes
//     shows within that. Changes made through this mount show at once, as the kernel makes them itself.
//   - A name that is not there is asked for each time: programs wait for files to appear, and making one asks anyway.
//   - File content stays for as long as a file is open, and until mtime or size change (AUTO_INVAL_DATA); the next open starts
//     anew. So what another mount had closed before is seen by each open.
const (
	entryTimeout = time.Second
	attrTimeout  = time.Second
)

// fillEntry tells the kernel of a node that a name leads to.
func (d *drive) fillEntry(out *fuse.EntryOut, a *blobstore.Attr) error {
	id, err := d.nodeID(a.Ino)
	if err != nil {
		return err
	}
	out.NodeId = id
	out.Generation = a.Generation
	out.SetEntryTimeout(entryTimeout)
	out.SetAttrTimeout(attrTimeout)
	d.convertAttr(&out.Attr, id, a)
	return nil
}

// fillEntry tells the kernel of a node that a name leads to, and that counts as looked up; if it can't, it takes the lookup back.
func (r *request) fillEntry(out *fuse.EntryOut, a *blobstore.Attr, at place) error {
	r.subject = a.Ino
	if err := r.drive.fillEntry(out, a); err != nil {
		r.drive.Forget(a.Ino, 1)
		return err
	}
	r.fs.paths.saw(out.NodeId, at)
	return nil
}

// fillAttr tells the kernel the attributes of the node that a request is about.
func (r *request) fillAttr(out *fuse.AttrOut, a *blobstore.Attr) {
	out.SetTimeout(attrTimeout)
	r.drive.convertAttr(&out.Attr, r.node, a)
}

func (d *drive) convertAttr(out *fuse.Attr, id uint64, a *blobstore.Attr) {
	*out = fuse.Attr{
		Ino:     id,
		Size:    uint64(a.Size),
		Blocks:  uint64(a.Blocks()),
		Mode:    d.modeOf(a),
		Nlink:   a.Nlink,
		Owner:   fuse.Owner{Uid: d.ids.uid(a.UID), Gid: d.ids.gid(a.GID)},
		Rdev:    a.Rdev,
		Blksize: blobstore.BlockSize,
	}
	out.Atime, out.Atimensec = splitTime(a.AtimeNs)
	out.Mtime, out.Mtimensec = splitTime(a.MtimeNs)
	out.Ctime, out.Ctimensec = splitTime(a.CtimeNs)
}

// modeOf is the mode that a node is shown with. In a mount of many drives the folder of each is its user's alone, whatever its mode
// says: a web application may have made it, with a mode that was never meant for the users of this machine.
func (d *drive) modeOf(a *blobstore.Attr) uint32 {
	const others = 0o077
	if d.many != nil && a.Ino == blobstore.RootIno {
		return a.Mode &^ others
	}
	return a.Mode
}

// splitTime gives nanoseconds since 1970 as the kernel wants them: whole seconds, negative before 1970 though the type is
// unsigned, and what is left over, never negative.
func splitTime(ns int64) (sec uint64, nsec uint32) {
	s, rest := ns/int64(time.Second), ns%int64(time.Second)
	if rest < 0 {
		s, rest = s-1, rest+int64(time.Second)
	}
	return uint64(s), uint32(rest)
}

// The times that an int64 of nanoseconds can hold, in whole seconds: 1677 to 2262.
const (
	minSeconds = -1 << 63 / int64(time.Second)
	maxSeconds = (1<<63 - 1) / int64(time.Second)
)

// joinTime is the inverse of splitTime. A time beyond what can be kept becomes the nearest that can, as the kernel does for
// file systems with narrower times (timestamp_truncate).
func joinTime(sec uint64, nsec uint32) int64 {
	s := int64(sec)
	switch {
	case s <= minSeconds:
		return minSeconds * int64(time.Second)
	case s >= maxSeconds:
		return maxSeconds * int64(time.Second)
	}
	return s*int64(time.Second) + int64(nsec)
}

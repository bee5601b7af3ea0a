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
func (fs *filesystem) fillEntry(out *fuse.EntryOut, a *blobstore.Attr) {
	out.NodeId = nodeID(a.Ino)
	out.Generation = a.Generation
	out.SetEntryTimeout(entryTimeout)
	out.SetAttrTimeout(attrTimeout)
	fs.convertAttr(&out.Attr, a)
}

// fillAttr tells the kernel the attributes of a node that it knows.
func (fs *filesystem) fillAttr(out *fuse.AttrOut, a *blobstore.Attr) {
	out.SetTimeout(attrTimeout)
	fs.convertAttr(&out.Attr, a)
}

func (fs *filesystem) convertAttr(out *fuse.Attr, a *blobstore.Attr) {
	*out = fuse.Attr{
		Ino:     nodeID(a.Ino),
		Size:    uint64(a.Size),
		Blocks:  uint64(a.Blocks()),
		Mode:    a.Mode,
		Nlink:   a.Nlink,
		Owner:   fuse.Owner{Uid: fs.ids.uid(a.UID), Gid: fs.ids.gid(a.GID)},
		Rdev:    a.Rdev,
		Blksize: blobstore.BlockSize,
	}
	out.Atime, out.Atimensec = splitTime(a.AtimeNs)
	out.Mtime, out.Mtimensec = splitTime(a.MtimeNs)
	out.Ctime, out.Ctimensec = splitTime(a.CtimeNs)
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

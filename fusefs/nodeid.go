package fusefs

import (
	"errors"
	"fmt"

	"mediafs/blobstore"
)

// The kernel knows a node by a 64-bit number that it gets with each entry and gives back with each request:
//
//	 63            44 43                                  0
//	+----------------+-------------------------------------+
//	|     drive      |                 ino                 |
//	+----------------+-------------------------------------+
//
// A mount of one drive has 0 for the drive and leaves all 64 bits to the ino, so there the two numbers are one. In a mount of
// many, drive 0 is the root folder alone (root.go). The root of the mount is 1 for the kernel (FUSE_ROOT_ID of linux/fuse.h) and
// for the drive (blobstore.RootIno). Nothing has to be remembered to tell one from the other, so a new daemon knows every node of
// the old one. 0 is no node.
const (
	inoBits = 44
	maxIno  = 1<<inoBits - 1
)

// unknownIno is the number in a listing of a node that has none; no node has it, as libfuse also says (FUSE_UNKNOWN_INO).
const unknownIno = 1<<32 - 1

// errInoTooLarge is an ino of more than 44 bits in a mount of many drives. File systems that number so do exist; Postgres does not.
var errInoTooLarge = errors.New("the node's number is too large for a mount of many drives: mount the drive alone")

// nodeID is the kernel's number of a drive's node.
func nodeID(number blobstore.DriveID, ino blobstore.Ino) (uint64, error) {
	switch {
	case number == 0:
		return uint64(ino), nil
	case ino > maxIno:
		return 0, fmt.Errorf("drive %d, ino %d: %w", number, ino, errInoTooLarge)
	}
	return uint64(number)<<inoBits | uint64(ino), nil
}

// split gives the number of the drive and the ino of what the kernel calls node.
func (fs *filesystem) split(node uint64) (blobstore.DriveID, blobstore.Ino) {
	if fs.many == nil {
		return 0, blobstore.Ino(node)
	}
	number := blobstore.DriveID(node >> inoBits)
	if number == 0 {
		return 0, blobstore.Ino(node)
	}
	return number, blobstore.Ino(node & maxIno)
}
